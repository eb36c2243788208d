"""What the regression leaves of a loss: a Gaussian process over the errors of the layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from rank_search.basics import Float, Int
from rank_search.options import Array
from rank_search.search.surrogate import Surrogate

REACHES: Final = (0.1, 0.2, 0.4, 0.8)
AMPLITUDES: Final = (0.1, 0.2, 0.4)
NOISES: Final = (0.05, 0.1, 0.2)
KEPT: Final = 100
"""Trials that it looks at, at most: an ask must stay quick."""


@dataclass(frozen=True, eq=False)
class Residual:
    """r = f(p) + noise, with f a Gaussian process of covariance amplitude²·exp(−‖p − p'‖²/(2·reach²)).

    Attributes:
        positions: p of the trials, n × d.
        reach, amplitude, noise: see above; the noise by its standard deviation.
        pulls: the inverse of the trials' covariance (noise² included) times their residuals.
    """

    positions: Float[Array, "n d"]
    reach: float
    amplitude: float
    noise: float
    pulls: Float[Array, " n"]

    @classmethod
    def fitted(cls, positions: Float[Array, "n d"], residuals: Float[Array, " n"]) -> Self:
        """The process that explains the residuals best.

        Symbols: positions (n × d), residuals r (n). Of all combinations of `REACHES`, `AMPLITUDES` and `NOISES` the one
        with the largest marginal likelihood N(r; 0, K + noise²·I) is taken (Rasmussen and Williams, "Gaussian processes
        for machine learning", 2006, eq. 5.8). Equal ones: the first. n = 0 expects 0 everywhere. O(n³) for each reach.

        Raises:
            ValueError: a residual is not finite.

        >>> near = Residual.fitted(np.array([[0.0], [1.0]]), np.array([0.3, -0.3])).mean(np.array([[0.0], [9.0]]))
        >>> bool(near[0] > 0.1), bool(abs(near[1]) < 1e-6)
        (True, True)
        """
        if not np.isfinite(residuals).all():
            raise ValueError("A residual is NaN or infinite; residuals must be finite.")
        squares = _squares(positions, positions)
        best, found = -np.inf, cls(positions, REACHES[0], AMPLITUDES[0], NOISES[0], np.zeros(len(residuals)))
        for reach in REACHES:
            values, vectors = _eigen(np.exp(-0.5 * squares / reach**2))
            along = vectors.T @ residuals  # n
            for amplitude, noise in product(AMPLITUDES, NOISES):
                spectrum = amplitude**2 * np.maximum(0.0, values) + noise**2
                evidence = -0.5 * float((along**2 / spectrum).sum() + np.log(spectrum).sum())
                if evidence > best:
                    best, found = evidence, cls(positions, reach, amplitude, noise, vectors @ (along / spectrum))
        return found

    def mean(self, positions: Float[Array, "m d"]) -> Float[Array, " m"]:
        """What f is expected to be at each position, O(n·d) each."""
        squares = _squares(positions, self.positions)
        return np.asarray(self.amplitude**2 * np.exp(-0.5 * squares / self.reach**2) @ self.pulls)


@dataclass(frozen=True, eq=False)
class Corrected:
    """A regression, and what it leaves near the trials that were looked at."""

    linear: Surrogate
    residual: Residual

    def predict(
        self, X: Float[Array, "m weights"], positions: Float[Array, "m d"]
    ) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """Mean of both together, and standard deviation of the regression alone.

        With the process's own deviation, candidates would be tried because nothing like them was: that found less.
        """
        mean, deviation = self.linear.predict(X)
        return mean + self.residual.mean(positions), deviation


def nearest(
    positions: Float[Array, "n d"], to: Float[Array, "m d"], count: int = KEPT
) -> Int[NDArray[np.intp], " kept"]:
    """The places of the given number of positions that are nearest to any of some others, in their order.

    >>> nearest(np.array([[0.0], [5.0], [1.0]]), np.array([[0.2]]), 2).tolist()
    [0, 2]
    """
    if len(positions) <= count or not len(to):
        return np.arange(min(count, len(positions)))
    return np.sort(np.argsort(_squares(positions, to).min(axis=1), kind="stable")[:count])


def _eigen(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues and vectors; by QR iteration where divide and conquer, which is faster, does not converge.

    It fails now and then on matrices that have nothing to it, with some builds of OpenBLAS.
    """
    try:
        values, vectors = np.linalg.eigh(matrix)
    except np.linalg.LinAlgError:
        values, vectors = eigh(matrix, driver="ev")
    return values, vectors


def _squares(some: Float[Array, "n d"], others: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squared distances of all pairs."""
    norms = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    squares: Array = np.maximum(0.0, norms - 2.0 * some @ others.T)
    return squares
