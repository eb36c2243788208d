"""Mean and variance of numbers that a network computes, one by one, and what common operations make of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor
from torch.special import ndtr

from rank_search.basics import Float

_LEAST_DEVIATION: Final = 1e-12


@final
@dataclass(frozen=True)
class KnownMoments:
    """Of each number of a tensor, in the tensor's shape.

    Attributes:
        mean, variance: of a normal distribution, or what has become of it.
        least, most: bounds that all of them keep.
    """

    mean: Tensor
    variance: Tensor
    least: float = -math.inf
    most: float = math.inf

    def clipped(self, low: float, high: float) -> KnownMoments:
        """What min(max(x, low), high) has; numbers that are within these bounds already stay."""
        if self.least >= low and self.most <= high:
            return self
        mean, square = clipped_moments(self.mean, self.variance, low, high)
        variance = (square - mean.square()).clamp_min(0)
        return KnownMoments(mean, variance, max(self.least, low), min(self.most, high))

    def plus(self, other: KnownMoments) -> KnownMoments:
        """Of the sum of two independent numbers."""
        return KnownMoments(
            self.mean + other.mean, self.variance + other.variance, self.least + other.least, self.most + other.most
        )

    def times(self, factor: float) -> KnownMoments:
        """Of a multiple."""
        ends = sorted((factor * self.least, factor * self.most)) if factor else (0.0, 0.0)
        return KnownMoments(factor * self.mean, factor**2 * self.variance, *ends)

    def shifted(self, by: float) -> KnownMoments:
        """Of the number and a constant."""
        return replace(self, mean=self.mean + by, least=self.least + by, most=self.most + by)


def clipped_moments(
    mean: Float[Tensor, "*sizes"], variance: Float[Tensor, "*sizes"], low: float = 0.0, high: float = math.inf
) -> tuple[Float[Tensor, "*sizes"], Float[Tensor, "*sizes"]]:
    """E[y] and E[y²] of y = min(max(x, low), high) with x from N(mean, variance), of each number.

    Symbols: μ, σ of x; a, b = low, high; α = (a − μ)/σ, β = (b − μ)/σ; φ, Φ density and distribution of N(0, 1).
    E[y] = a·Φ(α) + b·Φ(−β) + μ·(Φ(β) − Φ(α)) + σ·(φ(α) − φ(β)), and E[y²] = a²·Φ(α) + b²·Φ(−β) +
    (μ² + σ²)·(Φ(β) − Φ(α)) + 2·μ·σ·(φ(α) − φ(β)) + σ²·(α·φ(α) − β·φ(β)): moments of a censored normal distribution.
    With a = 0 and b = ∞, ReLU: μ·Φ(μ/σ) + σ·φ(μ/σ) and (μ² + σ²)·Φ(μ/σ) + μ·σ·φ(μ/σ), as Nagel et al. use them ("Data-
    Free Quantization", 2019). σ is at least 10⁻¹², so that without variance y is the clipped mean. Complexity: O(size).

    >>> mean, square = clipped_moments(torch.zeros(1), torch.ones(1))  # half a normal: 1/√(2π) and 1/2
    >>> round(float(mean), 4), float(square)
    (0.3989, 0.5)
    """
    deviation = variance.sqrt().clamp_min(_LEAST_DEVIATION)
    (below, a, a_density), (beside, b, b_density) = (_edge(mean, deviation, each) for each in (low, high))
    within, slope = beside - below, a_density - b_density
    lows, highs = (each if math.isfinite(each) else 0.0 for each in (low, high))
    first = lows * below + highs * (1 - beside) + mean * within + deviation * slope
    second = (
        lows**2 * below
        + highs**2 * (1 - beside)
        + (mean.square() + deviation.square()) * within
        + 2 * mean * deviation * slope
        + deviation.square() * (a * a_density - b * b_density)
    )
    return first, second


def _edge(mean: Tensor, deviation: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Φ, the standardized bound, and φ there; of an infinite bound 0 in place of itself."""
    if not math.isfinite(bound):
        return torch.full_like(mean, float(bound > 0)), torch.zeros_like(mean), torch.zeros_like(mean)
    place = (bound - mean) / deviation
    return ndtr(place), place, (-0.5 * place.square()).exp() / math.sqrt(2 * math.pi)
