"""A loss predicted from what is known of a point: Bayesian linear regression on the shares of the layers' errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from rank_search.basics import Bool, Float
from rank_search.options import Array

SPREADS: Final = (0.1, 0.3, 1.0)
NOISES: Final = (0.1, 0.2, 0.4)


@dataclass(frozen=True, eq=False)
class Surrogate:
    """z = X·w + noise, with w ~ N(0, diag(scale²)) before any data.

    Attributes:
        scale: the standard deviation of each weight before the data.
        mean: of the weights in units of their scale, after the data.
        cholesky: L with L·Lᵀ = the precision of these.
        noise: standard deviation of an observation.
    """

    scale: Float[Array, " d"]
    mean: Float[Array, " d"]
    cholesky: Float[Array, "d d"]
    noise: float

    @classmethod
    def fitted(
        cls,
        X: Float[Array, "n d"],
        z: Float[Array, " n"],
        scale: Float[Array, " d"],
        flexible: Bool[NDArray[np.bool_], " d"],
    ) -> Self:
        """The posterior, with the two scales that explain the data best.

        Symbols: X (n × d), z (n). The scale of the flexible weights is multiplied by each of `SPREADS`, the noise is
        each of `NOISES`, and the pair with the largest marginal likelihood N(z; 0, S·Sᵀ + noise²·I), S = X·diag(scale),
        is taken (empirical Bayes; MacKay, "Bayesian interpolation", 1992). n = 0 gives the prior. O(min(n, d)²·max(n,
        d)) for each pair.
        """
        gram, products, power = X.T @ X, X.T @ z, float(z @ z)
        pairs = [(np.where(flexible, spread * scale, scale), noise) for spread in SPREADS for noise in NOISES]
        tried = [cls._given(gram, products, best, noise) for best, noise in pairs]
        return max(tried, key=lambda each: each._evidence(products, power, len(z)))

    @classmethod
    def _given(
        cls, gram: Float[Array, "d d"], products: Float[Array, " d"], scale: Float[Array, " d"], noise: float
    ) -> Self:
        """The posterior for these scales, from XᵀX and Xᵀz."""
        precision = gram * np.outer(scale, scale) / noise**2 + np.eye(len(scale))
        cholesky: Array = np.linalg.cholesky(precision).astype(np.float64)
        right = scale * products / noise**2
        mean = solve_triangular(cholesky.T, solve_triangular(cholesky, right, lower=True), lower=False)
        return cls(scale, mean, cholesky, noise)

    def _evidence(self, products: Float[Array, " d"], power: float, count: int) -> float:
        """Logarithm of the marginal likelihood, up to a constant (by Woodbury and the determinant lemma)."""
        fit = (power - self.mean @ (self.scale * products)) / self.noise**2
        return float(-0.5 * fit - np.log(np.diag(self.cholesky)).sum() - count * np.log(self.noise))

    def predict(self, X: Float[Array, "n d"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Mean and standard deviation of X·w, the noise left out."""
        S = X * self.scale
        return S @ self.mean, np.linalg.norm(solve_triangular(self.cholesky, S.T, lower=True), axis=0)

    def weights(self) -> Float[Array, " d"]:
        """The expected weights."""
        return self.scale * self.mean

    def drawn(self, rng: np.random.Generator, count: int) -> Float[Array, "{count} d"]:
        """Weights drawn from the posterior, one row for each draw."""
        noise = solve_triangular(
            self.cholesky.T, rng.standard_normal((self.mean.size, count)), lower=False
        )  # d × count
        return np.asarray(self.scale * (self.mean + noise.T))
