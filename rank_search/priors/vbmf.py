"""Empirical variational Bayesian matrix factorization (EVBMF): the rank that stands out of the noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from rank_search.basics import Float
from rank_search.priors.spectrum import Spectrum, Values

_GRID: Final = 512
_CHUNK: Final = 2**17
_FLOOR: Final = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class RankPrior:
    """What EVBMF finds in a spectrum, in the units of the matrix.

    Attributes:
        rank: number of singular values above the threshold.
        noise_variance: σ² of one entry.
        threshold: singular values above it are signal.
        energy_kept: share of ‖Y‖² in the kept singular values, 0 to 1.
    """

    rank: int
    noise_variance: float
    threshold: float
    energy_kept: float


def vbmf(spectrum: Spectrum) -> RankPrior:
    """The global analytic solution of EVBMF: noise variance, threshold and rank.

    Symbols: Y = BAᵀ + noise of variance σ², L × M with L ≤ M; g_h its singular values; α = L/M. With
    x_h = g_h²/(Mσ²) and x̄ the solution of `relative_threshold(α)`, σ² minimizes the free energy

        J(σ²) = Σ_h [x_h − ln x_h] + Σ_{x_h > x̄} [ln(1 + τ_h) + α·ln(1 + τ_h/α) − τ_h],
        τ_h = (x_h − (1+α) + √((x_h − (1+α))² − 4α)) / 2,

    and the rank is the number of x_h > x̄. Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of
    fully-observed variational Bayesian matrix factorization", JMLR 14 (2013); the bracket for σ² is that of
    Nakajima, Tomioka, Sugiyama and Babacan, "Condition for perfect dimensionality recovery by variational
    Bayesian PCA", JMLR 16 (2015).

    J can have several minima, so it is laid out on a logarithmic grid over the bracket and every minimum is
    refined. The spectrum is divided by its RMS entry before, so the rank does not depend on the scale.

    Edge cases: a zero matrix has rank 0, and so has pure noise. A noiseless matrix of rank r gives r as long as
    r < LM/(L+M), the largest rank EVBMF can find; with one or two rows there is too little to tell signal from
    noise, and the usual answer is 0. Ties at the threshold are noise.

    Complexity: O(512·L), negligible beside the spectrum itself.

    >>> prior = vbmf(Spectrum(np.array([10, 5, 1, 0.9]), rows=4, columns=10))
    >>> prior.rank, round(prior.noise_variance, 6), round(prior.threshold, 4)
    (2, 0.155177, 2.2452)
    """
    if spectrum.energy == 0:
        return RankPrior(0, 0.0, 0.0, 0.0)
    unit = spectrum.energy / (spectrum.rows * spectrum.columns)
    energy = _FreeEnergy.of(spectrum.values**2 / (spectrum.columns * unit), spectrum)
    noise = _global_minimum(energy)
    kept = int(np.count_nonzero(energy.powers > noise * energy.edge))
    return RankPrior(
        rank=kept,
        noise_variance=noise * unit,
        threshold=(noise * energy.edge * spectrum.columns * unit) ** 0.5,
        energy_kept=min(float(energy.powers[:kept].sum() / energy.powers.sum()), 1.0),
    )


@dataclass(frozen=True, eq=False)
class _FreeEnergy:
    """J as a function of σ² in units of the mean square entry, so that 1 is the largest possible noise.

    Attributes:
        powers: g²/M in those units, descending; x = powers / σ².
        rows: L.
        ratio: α = L/M.
        edge: x̄.
        lower: the smallest possible noise.
    """

    powers: Float[Values, " rows"]
    rows: int
    ratio: float
    edge: float
    lower: float

    @classmethod
    def of(cls, powers: Float[Values, " rows"], spectrum: Spectrum) -> _FreeEnergy:
        rows, columns = spectrum.rows, spectrum.columns
        edge = relative_threshold(rows / columns)
        most = -(-rows * columns // (rows + columns)) - 1  # the largest rank EVBMF can find
        tail = powers[most:]
        # A noiseless matrix has an empty tail; the floor keeps ln σ² finite, below what a spectrum can hold.
        lower = max(float(tail[0]) / edge, float(tail.mean()), _FLOOR)
        return cls(powers, rows, rows / columns, edge, min(lower, 1.0))

    def __call__(self, noise: Float[Values, " points"]) -> Float[Values, " points"]:
        """J at each noise variance, without the constant −Σ ln(g²/M)."""
        x = self.powers / noise[:, None]  # points × rows
        above = x > self.edge
        shifted = x[above] - (1 + self.ratio)
        tau = (shifted + np.sqrt(shifted**2 - 4 * self.ratio)) / 2
        # x − τ of a signal is 1 + α + α/τ, because x = (1 + τ)(1 + α/τ): as a difference of two numbers of the
        # size of 1/σ² it would leave nothing but rounding when there is hardly any noise.
        x[above] = 1 + self.ratio + self.ratio / tau + np.log1p(tau) + self.ratio * np.log1p(tau / self.ratio)
        total: Values = self.rows * np.log(noise) + x.sum(axis=1)
        return total


@lru_cache(maxsize=4096)
def relative_threshold(ratio: float) -> float:
    """x̄ = (1 + τ̄)(1 + α/τ̄): the squared threshold in units of Mσ², for α = L/M in (0, 1].

    τ̄ is the root of Φ(τ) + Φ(τ/α) = 0, Φ(z) = ln(1 + z)/z − 1/2 (Nakajima et al. 2015, theorem on EVBMF). The
    usual shortcut τ̄ ≈ 2.5129·√α is 5 % low at α = 0.05, so the equation is solved.

    >>> round(relative_threshold(1.0), 4), round(relative_threshold(1 / 9), 4)
    (4.9108, 2.1039)
    """

    def balance(tau: float) -> float:
        return float(np.log1p(tau) + ratio * np.log1p(tau / ratio) - tau)

    tau = float(brentq(balance, ratio**0.5, 3.0, xtol=1e-15))
    return (1 + tau) * (1 + ratio / tau)


def _global_minimum(energy: _FreeEnergy) -> float:
    """Where J is least: every local minimum on the grid is refined, the two ends included."""
    grid = np.geomspace(energy.lower, 1.0, _GRID)
    chunks = np.array_split(grid, 1 + grid.size * energy.powers.size // _CHUNK)
    walled = np.concatenate([[np.inf], *(energy(chunk) for chunk in chunks), [np.inf]])
    levels = walled[1:-1]
    minima = np.flatnonzero((levels < walled[:-2]) & (levels <= walled[2:]))
    return min(_refined(energy, grid, int(index)) for index in minima)[1]


def _refined(energy: _FreeEnergy, grid: Float[Values, " points"], index: int) -> tuple[float, float]:
    """(J, σ²) of the minimum next to a grid point."""
    low, high = np.log(grid[max(index - 1, 0)]), np.log(grid[min(index + 1, grid.size - 1)])
    found = minimize_scalar(
        lambda log: float(energy(np.exp([log]))[0]), bounds=(low, high), method="bounded", options={"xatol": 1e-10}
    )
    candidates = np.array([grid[index], np.exp(found.x)])
    levels = energy(candidates)
    best = int(np.argmin(levels))
    return float(levels[best]), float(candidates[best])
