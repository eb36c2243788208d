"""How many bits a matrix takes at which error, before anything is trained: rank and step in closed form.

A matrix W of size L × M is kept as its first r singular triples, in balanced form A = U·diag(√g), B = V·diag(√g), and
column i of both factors is rounded to multiples of Δ/√gᵢ, which is the same as rounding the entries of uᵢ and vᵢ to
multiples of Δ/gᵢ. So an error of every entry weighs the same in W = A·Bᵀ, and since uᵢ and vᵢ have length 1, their
entries have variances 1/L and 1/M: the distribution to code with is known from gᵢ alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, xlogy

from rank_search.errors import ContractError
from rank_search.priors.spectrum import Spectrum

Values = NDArray[np.float64]

_LOW, _HIGH, _POINTS = 0.02, 8.0, 513  # of t: below nothing is left, above the formula is exact to 1e-3 of a bit
_HALVINGS: Final = 50


@dataclass(frozen=True)
class Coding:
    """A rank and a step, and what they come to.

    Attributes:
        rank, step: r and Δ; infinite where the rank is zero.
        bits: of all entries of both factors.
        distortion: squared Frobenius norm of the error of W, by truncation and by rounding.
    """

    rank: int
    step: float
    bits: float
    distortion: float


def rounded_entropy(deviation: Values) -> Values:
    """Bits per entry of a normal variable of this standard deviation, rounded to whole numbers.

    Symbols: x ~ N(0, t²), H(t) = −Σ_k p_k·log2 p_k with p_k = Φ((k+½)/t) − Φ((k−½)/t). For large t it tends to
    ½·log2(2πe·t²) (Cover and Thomas, "Elements of Information Theory", theorem 8.3.1), which is taken above 8; below,
    a table of 513 values is interpolated in ln t (to within 10⁻³ bits). Zero, and all below 0.02, give 0;
    infinity gives infinity; NaN gives NaN; a negative deviation counts as zero. O(n).

    >>> rounded_entropy(np.array([0.0, 0.3, 1.0])).round(2).tolist()
    [0.0, 0.55, 2.1]
    """
    t = np.asarray(deviation, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log(np.maximum(t, 0.0))
        fine = 0.5 * math.log2(2 * math.pi * math.e) + logarithm / math.log(2)
    found: Values = np.where(t > _HIGH, fine, np.interp(logarithm, *_table(), left=0.0))
    return np.where(np.isnan(t), np.nan, found)


@cache
def _table() -> tuple[Values, Values]:
    logarithm = np.linspace(math.log(_LOW), math.log(_HIGH), _POINTS)
    edges = (np.arange(-80, 82) - 0.5) / np.exp(logarithm)[:, None]
    mass = np.diff(0.5 * (1 + erf(edges / math.sqrt(2))), axis=1)
    return logarithm, -xlogy(mass, mass).sum(axis=1) / math.log(2)


def coded_distortion(spectrum: Spectrum, rank: int, step: float) -> float:
    """Σ_{i>r} gᵢ² + r·(L + M)·Δ²/12: what truncation and rounding do to W, in squared Frobenius norm.

    Symbols as above; an entry's rounding error is uniform, of variance (Δ/gᵢ)²/12, and reaches W times gᵢ. Second-order
    terms are left out: it is right while the factors have more than about a bit per entry, and too high below that,
    where whole columns round to zero. Rank 0 gives Σ g²; step 0 the truncation alone. O(L).

    Raises:
        ContractError: the rank is not one of this matrix, or the step is negative.

    >>> coded_distortion(Spectrum(np.array([3.0, 1.0]), 2, 4), 1, 1.0)
    1.5
    """
    _check(spectrum, rank, step)
    truncated = float(np.square(spectrum.values[rank:]).sum())
    return truncated + (rank * (spectrum.rows + spectrum.columns) * step**2 / 12 if rank else 0.0)


def coded_bits(spectrum: Spectrum, rank: int, step: float) -> float:
    """Σ_{i≤r} L·H(gᵢ/(√L·Δ)) + M·H(gᵢ/(√M·Δ)): bits of both factors, with steps and priors that follow from g alone.

    H as in `rounded_entropy`. Rank 0 and an infinite step give 0; step 0 infinity. Not counted are the g themselves, a
    small whole number each. O(r).

    Raises:
        ContractError: the rank is not one of this matrix, or the step is negative.

    >>> round(coded_bits(Spectrum(np.array([8.0, 1.0]), 4, 4), 1, 1.0), 1)
    32.4
    """
    _check(spectrum, rank, step)
    kept = spectrum.values[:rank]
    kept = kept[kept > 0]
    if step == 0 and len(kept):
        return math.inf
    return (
        float(sum(_bits(kept / step, size).sum() for size in (spectrum.rows, spectrum.columns))) if len(kept) else 0.0
    )


def component_steps(spectrum: Spectrum, rank: int, step: float) -> Values:
    """Δ/gᵢ for the first r components: the step of the entries of the orthonormal uᵢ and vᵢ.

    In balanced form the steps of column i are √gᵢ times as large; where one factor carries g and the other is
    orthonormal, they are Δ there and Δ/gᵢ here. A component of zero has an infinite step: nothing of it is kept. O(r).

    Raises:
        ContractError: the rank is not one of this matrix, or the step is negative.

    >>> component_steps(Spectrum(np.array([4.0, 2.0]), 2, 4), 2, 1.0).tolist()
    [0.25, 0.5]
    """
    _check(spectrum, rank, step)
    with np.errstate(divide="ignore"):
        return np.asarray(step / spectrum.values[:rank])


def best_for_distortion(spectrum: Spectrum, most: float) -> Coding:
    """The rank and step that take the fewest bits for at most this distortion.

    For each rank whose truncation alone is less than D, Δ = √(12·(D − Σ_{i>r} gᵢ²) / (r·(L + M))), and the least
    `coded_bits` wins. Of equal bits
    the smaller rank. At Σ g² or more nothing is kept. O(L²).

    Raises:
        ContractError: the distortion is negative or NaN, or zero for a matrix that is not zero.

    >>> best_for_distortion(Spectrum(np.array([8.0, 1.0, 0.5]), 16, 16), 3.0).rank
    1
    """
    tails = np.append(np.cumsum(np.square(spectrum.values)[::-1])[::-1], 0.0)
    if not most >= 0 or (most == 0 and tails[0] > 0):
        raise ContractError(f"A distortion to keep is positive; it is {most}. Give one of the matrix's squared norm.")
    if most >= tails[0]:
        return Coding(0, math.inf, 0.0, float(tails[0]))
    ranks = [rank for rank in range(1, len(tails)) if tails[rank] < most]
    both = spectrum.rows + spectrum.columns
    steps = {rank: math.sqrt(12 * (most - tails[rank]) / (rank * both)) for rank in ranks}
    bits = {rank: coded_bits(spectrum, rank, steps[rank]) for rank in ranks}
    best = min(ranks, key=lambda rank: (bits[rank], rank))
    return Coding(best, steps[best], bits[best], most)


def best_for_bits(spectrum: Spectrum, most: float) -> Coding:
    """The rank and step of the least distortion that take at most the given bits.

    By bisection of the distortion in `best_for_distortion`, whose bits fall as it grows, to 15 digits. No bits, and a
    zero matrix, keep nothing. O(L²), fifty times.

    Raises:
        ContractError: the bits are negative, infinite or NaN.

    >>> found = best_for_bits(Spectrum(np.array([8.0, 1.0, 0.5]), 16, 16), 100.0)
    >>> found.rank, round(found.bits, 3)
    (1, 100.0)
    """
    if not 0 <= most < math.inf:
        raise ContractError(f"Bits to keep to are a finite number of at least 0; they are {most}.")
    nothing = best_for_distortion(spectrum, spectrum.energy)
    low, high, found = 0.0, spectrum.energy, nothing
    for _ in range(_HALVINGS if spectrum.energy > 0 and most > 0 else 0):
        # Geometric once the lower end is known: small distortions span many powers of ten.
        middle = math.sqrt(low * high) if low > 0 else high * 1e-3
        tried = best_for_distortion(spectrum, middle)
        if tried.bits <= most:
            high, found = middle, tried
        else:
            low = middle
    return found


def _bits(components: Values, size: int) -> Values:
    return size * rounded_entropy(components / math.sqrt(size))


def _check(spectrum: Spectrum, rank: int, step: float) -> None:
    if not 0 <= rank <= len(spectrum.values):
        raise ContractError(f"A matrix of {len(spectrum.values)} singular values has no rank {rank}. Ask for less.")
    if not step >= 0:
        raise ContractError(f"A step is a number of at least 0; it is {step}. Give its size, not its logarithm.")
