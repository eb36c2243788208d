"""Bits against entropy, and numbers per second, of every way to code whole numbers; zlib and lzma beside them.

    python benchmarks/coders.py [REPETITIONS]

Whole numbers are rounded samples of a Laplace distribution, in the shapes of factors of 8 and 16 components and of a
dense layer. Speeds are the best of REPETITIONS (3) runs, in seconds of one core; what comes back is compared with what
went in.
"""

from __future__ import annotations

import lzma
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np

from rank_search.coding.binarization import ALONE, Integers, questions
from rank_search.coding.binary_range_coder import BinaryReader, BinaryWriter, Contexts
from rank_search.coding.coding_priors import FAMILIES, Masses, RangeReader, RangeWriter, best, masses
from rank_search.coding.estimate import LearnedModel, adaptive_bits
from rank_search.coding.plans import choose

SHAPES = ((64, 8), (256, 16), (512, 512))
SCALES = (0.3, 1.0, 3.0)
SPEED = (2000, 1000)

Coded = tuple[bytes, Callable[[bytes], Integers]]
Code = Callable[[Integers], Coded]


def laplace(scale: float, shape: tuple[int, int]) -> Integers:
    return np.round(np.random.default_rng(0).laplace(0, scale, shape)).astype(np.int32)


def entropy(matrix: Integers) -> float:
    counts = np.unique(matrix, return_counts=True)[1]
    return float(-(counts * np.log2(counts / matrix.size)).sum()) / matrix.size


def mass_of(family: str, matrix: Integers) -> Masses:
    low, high = int(matrix.min()), int(matrix.max())
    return masses(family, best(family, np.bincount(matrix.reshape(-1) - low), low)[0], low, high)


def ranged(mass: Masses, matrix: Integers) -> Coded:
    writer, low = RangeWriter(), int(matrix.min())
    writer.write(matrix.reshape(-1), low, mass)
    return writer.finish(), lambda data: RangeReader(data).read(matrix.size, low, mass)


def adaptive(matrix: Integers) -> Coded:
    writer = BinaryWriter()
    writer.write(matrix.reshape(-1).astype(np.int64), ALONE.kinds(matrix), Contexts())
    shape = (matrix.shape[0], matrix.shape[1])
    return writer.finish(), lambda data: BinaryReader(data).read(shape, ALONE, Contexts())


def general(compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes], matrix: Integers) -> Coded:
    coded = compress(matrix.astype(np.int8).tobytes())
    return coded, lambda data: np.frombuffer(decompress(data), np.int8).astype(np.int32)


def timed(code: Code, matrix: Integers, repetitions: int) -> tuple[float, float, float]:
    """Bits per number, and millions of numbers per second, there and back."""
    there, back = [], []
    for _ in range(repetitions):
        start = time.process_time()
        data, decode = code(matrix)
        there.append(time.process_time() - start)
        start = time.process_time()
        found = decode(data)
        back.append(time.process_time() - start)
        assert np.array_equal(found.reshape(matrix.shape), matrix)
    return 8 * len(data) / matrix.size, matrix.size / min(there) / 1e6, matrix.size / min(back) / 1e6


def estimate_speed(matrix: Integers) -> float:
    start = time.process_time()
    adaptive_bits(questions(matrix.reshape(-1).astype(np.int64), ALONE.kinds(matrix)), LearnedModel())
    return matrix.size / (time.process_time() - start) / 1e6


def main(repetitions: int) -> None:
    print("| shape | scale / step | entropy | laplace | logistic | normal | adaptive | chosen (way) | zlib | lzma |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    general_coders = (
        partial(general, partial(zlib.compress, level=9), zlib.decompress),
        partial(general, lzma.compress, lzma.decompress),
    )
    for shape in SHAPES:
        for scale in SCALES:
            matrix = laplace(scale, shape)
            codes: list[Code] = [*(partial(ranged, mass_of(family, matrix)) for family in FAMILIES), adaptive]
            plan, _ = choose([matrix])
            cells = [f"{timed(code, matrix, 1)[0]:.3f}" for code in codes]
            cells.append(f"{plan.bits / matrix.size:.3f} ({plan.way})")
            cells += [f"{timed(code, matrix, 1)[0]:.3f}" for code in general_coders]
            print(f"| {shape[0]} × {shape[1]} | {scale} | {entropy(matrix):.3f} | " + " | ".join(cells) + " |")
    print("\n| coder | million numbers/s, there | back |\n| --- | --- | --- |")
    large, small = laplace(1.0, SPEED), laplace(1.0, (200, 200))
    rows: list[tuple[str, Code, Integers]] = [
        (family, partial(ranged, mass_of(family, large)), large) for family in FAMILIES
    ]
    rows += [("adaptive", adaptive, small), ("zlib", general_coders[0], large), ("lzma", general_coders[1], large)]
    for name, code, matrix in rows:
        _, there, back = timed(code, matrix, repetitions)
        print(f"| {name} | {there:.3g} | {back:.3g} |")
    print(f"\nThe adaptive coder's estimate: {estimate_speed(large):.3g} million numbers/s.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
