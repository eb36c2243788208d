"""EVBMF: singular values from the smaller Gram matrix, against a full SVD with its vectors thrown away.

Run: python benchmarks/vbmf.py [--quick]      (one process, one thread; --quick leaves out the two largest)

Matrices: Gaussian factors of a planted rank (a tenth of the smaller side) plus noise of the same power, float32.
"Full SVD" is `numpy.linalg.svd(matrix)` in float64 as the public ports of EVBMF call it, then the same estimate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import RankPrior, vbmf

SHAPES = [(64, 576), (256, 2304), (512, 4608), (1024, 4096), (4096, 4096), (4096, 11008)]


def planted(rows: int, columns: int) -> torch.Tensor:
    """A matrix of rank rows / 10 with unit entries, plus unit noise."""
    generator = torch.Generator().manual_seed(0)
    rank = max(rows // 10, 1)
    left = torch.randn(rows, rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    noisy: torch.Tensor = left @ right / rank**0.5 + torch.randn(rows, columns, generator=generator)
    return noisy


def ours(matrix: torch.Tensor) -> RankPrior:
    return vbmf(Spectrum.of(matrix, "the benchmark's matrix"))


def full_svd(matrix: torch.Tensor) -> RankPrior:
    exact = matrix.to(torch.float64).numpy()
    _, values, _ = np.linalg.svd(exact)
    return vbmf(Spectrum(values, *sorted(exact.shape)))


def seconds(estimate: Callable[[torch.Tensor], RankPrior], matrix: torch.Tensor) -> tuple[float, RankPrior]:
    """CPU seconds of one estimate (the mean over about a quarter of a second), and its result."""
    start, repeats = time.process_time(), 0
    while repeats == 0 or time.process_time() - start < 0.25:
        prior = estimate(matrix)
        repeats += 1
    return (time.process_time() - start) / repeats, prior


def compare(rows: int, columns: int) -> None:
    matrix = planted(rows, columns)
    fast, found = seconds(ours, matrix)
    spectrum = Spectrum.of(matrix, "the benchmark's matrix")
    estimate, _ = seconds(lambda _: vbmf(spectrum), matrix)
    slow, expected = seconds(full_svd, matrix)
    print(
        f"{rows:>5} × {columns:<6} {rows // 10:>7} {found.rank:>6} {expected.rank:>6} "
        f"{fast:>10.4f} {estimate:>10.4f} {slow:>10.4f} {slow / fast:>8.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="EVBMF against a full SVD.")
    parser.add_argument("--quick", action="store_true", help="leave out the two largest matrices")
    shapes = SHAPES[:-2] if parser.parse_args().quick else SHAPES
    print("CPU seconds, one thread")
    print("        matrix planted   ours    svd     ours s    EVBMF s      svd s    ratio")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for rows, columns in shapes:
            compare(rows, columns)


if __name__ == "__main__":
    main()
