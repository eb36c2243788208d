"""Distributions over whole numbers that both ends can compute to the last bit, and a range coder that uses them.

Only additions, multiplications, divisions and square roots of IEEE 754 are used, in a stated order, since no two
mathematics libraries agree on exp and log. The parameter is a small whole number j: odds o = (1 + (j mod 32)/32) ·
2^(⌊j/32⌋ − 20), θ = o/(1 + o), t = √θ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import constriction
import numpy as np
from numpy.typing import NDArray

from rank_search.basics import Float, Int
from rank_search.coding.binarization import Integers
from rank_search.coding.grid import POWERS, STEPS_PER_OCTAVE

LAPLACE: Final = "laplace"
LOGISTIC: Final = "logistic"
NORMAL: Final = "normal"
FAMILIES: Final = (LAPLACE, LOGISTIC, NORMAL)

PARAMETERS: Final = 32 * 40
TOTAL: Final = 1 << 24
"""Frequencies are whole numbers, at least 1, with this sum."""

Masses = NDArray[np.float64]


def masses(family: str, parameter: int, low: int, high: int) -> Float[Masses, " numbers"]:
    """Mass of each whole number low … high, up to a factor.

    With k = |number|, and θ and t = √θ from the parameter (see above):
    laplace: 1 − t at 0, else θ^(k−1)·t·(1 − θ)/2: Laplace(0, b) in bins of one, θ = e^(−1/b);
    logistic: with u_k = t·θ^k: (1 − t)/(1 + t) at 0, else (u_(k−1) − u_k)/((1 + u_(k−1))·(1 + u_k)): the logistic
    distribution of scale s in bins of one, θ = e^(−1/s);
    normal: θ^(k²): the discrete normal distribution of variance −1/(2·ln θ).
    Powers are running products. May all be 0 where 0 is not among the numbers. O(highest magnitude).

    >>> masses("laplace", 20 * 32, -1, 1).round(3).tolist()
    [0.177, 0.293, 0.177]
    """
    odds = math.ldexp(1 + parameter % 32 / 32, parameter // 32 - 20)
    ratio = odds / (1 + odds)
    root, most = math.sqrt(ratio), max(abs(low), abs(high))
    with np.errstate(under="ignore"):
        powers = np.multiply.accumulate(np.full(most + 1, ratio))  # θ^1 … θ^(most + 1)
        if family == LAPLACE:
            found = np.concatenate([[1 - root], np.concatenate([[1.0], powers])[:most] * (root * (1 - ratio) / 2)])
        elif family == LOGISTIC:
            ends = np.concatenate([[root], root * powers[:most]])
            inner = (ends[:-1] - ends[1:]) / ((1 + ends[:-1]) * (1 + ends[1:]))
            found = np.concatenate([[(1 - root) / (1 + root)], inner])
        else:
            odd = np.multiply.accumulate(np.concatenate([[ratio], np.full(most, ratio * ratio)]))[:most]
            found = np.concatenate([[1.0], np.multiply.accumulate(odd)])
    return np.asarray(found[np.abs(np.arange(low, high + 1))])


def tabulated(levels: Sequence[int]) -> Float[Masses, " numbers"]:
    """2^(−level/8) for each number of a table.

    >>> tabulated([0, 8, 16]).tolist()
    [1.0, 0.5, 0.25]
    """
    return np.array([math.ldexp(POWERS[-level % STEPS_PER_OCTAVE], -level // STEPS_PER_OCTAVE) for level in levels])


def frequencies(mass: Float[Masses, " numbers"]) -> Int[NDArray[np.int64], " numbers"]:
    """Whole numbers in proportion, each at least 1, that sum to 2²⁴ (at most 2²³ of them).

    f = 1 + ⌊(2²⁴ − n)·mass/Σ mass⌋, and what is missing goes to the largest (the first of them). Masses that are all
    0 count as equal. The sum is taken from left to right.

    >>> (frequencies(np.array([1.0, 0.0, 1.0])) - (1 << 23)).tolist()
    [0, -8388607, -1]
    """
    total = float(np.add.accumulate(mass)[-1])
    shares = mass / total if total > 0 else np.full(mass.size, 1 / mass.size)
    found = 1 + np.floor(shares * (TOTAL - mass.size)).astype(np.int64)
    found[int(found.argmax())] += TOTAL - int(found.sum())
    return found


def best(family: str, counts: Int[NDArray[np.int64], " numbers"], low: int) -> tuple[int, float]:
    """The parameter under which numbers low, low + 1, … that occur so often take the fewest bits, and these bits.

    A search with halved strides from the middle, the cost having one minimum. O(numbers) for some 40 parameters.

    >>> parameter, bits = best("laplace", np.array([25, 50, 25]), -1)
    >>> round(bits, 1)
    150.0
    """
    seen = np.flatnonzero(counts)

    def bits(parameter: int) -> float:
        return bits_under(masses(family, parameter, low, low + counts.size - 1), counts, seen)

    cost = {parameter: bits(parameter) for parameter in range(64, PARAMETERS, 128)}
    for stride in (64, 32, 16, 8, 4, 2, 1):
        middle = min(cost, key=lambda parameter: cost[parameter])
        for parameter in (middle - stride, middle + stride):
            if 0 <= parameter < PARAMETERS and parameter not in cost:
                cost[parameter] = bits(parameter)
    parameter = min(cost, key=lambda parameter: cost[parameter])
    return parameter, cost[parameter]


def bits_under(
    mass: Float[Masses, " numbers"], counts: Int[NDArray[np.int64], " numbers"], seen: Int[NDArray[np.int64], " seen"]
) -> float:
    """Bits that the range coder takes for numbers that occur so often; `seen` are the places with a count.

    >>> round(bits_under(np.array([1.0, 1.0]), np.array([8, 0]), np.array([0])), 3)
    8.0
    """
    return float((counts[seen] * (24 - np.log2(frequencies(mass)[seen]))).sum())


class RangeWriter:
    """One range-coded stream for all numbers under priors and tables."""

    def __init__(self) -> None:
        self._coder: Any = constriction.stream.queue.RangeEncoder()

    def write(self, numbers: Integers, low: int, mass: Masses) -> None:
        self._coder.encode((numbers - low).astype(np.int32), _model(mass))

    def finish(self) -> bytes:
        """The bytes, little-endian words of 32 bits; zeros at the end are left out."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes()).rstrip(b"\0")


class RangeReader:
    """Reads what `RangeWriter` wrote, given the same masses in the same order."""

    def __init__(self, stream: bytes) -> None:
        words = np.frombuffer(stream + b"\0" * (-len(stream) % 4), dtype="<u4").astype(np.uint32)
        self._coder: Any = constriction.stream.queue.RangeDecoder(words)

    def read(self, count: int, low: int, mass: Masses) -> Integers:
        decoded: Integers = self._coder.decode(_model(mass), count)
        return (decoded + np.int32(low)).astype(np.int32)


def _model(mass: Masses) -> Any:
    return constriction.stream.model.Categorical(frequencies(mass) / TOTAL, perfect=False)
