"""The surrogate, against the same formulas solved naively."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from rank_search.search.surrogate import NOISES, SPREADS, Surrogate

SCALE = np.array([3.0, 2.0, 1.0, 1.0, 1.0])
FLEXIBLE = np.array([False, False, True, True, True])
Data = tuple[np.ndarray, np.ndarray]


def data(count: int, noise: float = 0.2, weights: tuple[float, ...] = (1.0, 0.5, 1.5, -1.0, 0.2)) -> Data:
    rng = np.random.default_rng(count)
    X = rng.standard_normal((count, 5))
    return X, X @ np.array(weights) + noise * rng.standard_normal(count)


def candidates() -> list[tuple[np.ndarray, float]]:
    return [(np.where(FLEXIBLE, spread * SCALE, SCALE), noise) for spread in SPREADS for noise in NOISES]


def log_likelihood(X: np.ndarray, z: np.ndarray, scale: np.ndarray, noise: float) -> float:
    covariance = X @ np.diag(scale**2) @ X.T + noise**2 * np.eye(len(z))
    return float(multivariate_normal(np.zeros(len(z)), covariance).logpdf(z))


@pytest.mark.parametrize("count", [1, 3, 12, 60])
def test_surrogate_posterior_is_the_textbook_one(count: int) -> None:
    """Bishop, "Pattern recognition and machine learning", 2006, equations 3.53 and 3.54."""
    X, z = data(count)
    found = Surrogate.fitted(X, z, SCALE, FLEXIBLE)
    covariance = np.linalg.inv(np.diag(found.scale**-2.0) + X.T @ X / found.noise**2)
    mean = covariance @ X.T @ z / found.noise**2
    assert found.weights() == pytest.approx(mean, rel=1e-8, abs=1e-10)
    new = np.random.default_rng(0).standard_normal((7, 5))
    predicted, deviation = found.predict(new)
    assert predicted == pytest.approx(new @ mean, rel=1e-8, abs=1e-10)
    assert deviation == pytest.approx(np.sqrt(np.diag(new @ covariance @ new.T)), rel=1e-8)


@pytest.mark.parametrize("count", [1, 4, 25])
def test_surrogate_evidence_is_the_marginal_likelihood_up_to_one_constant(count: int) -> None:
    X, z = data(count)
    gram, products = X.T @ X, X.T @ z
    differences = [
        Surrogate._given(gram, products, scale, noise)._evidence(products, float(z @ z), count)
        - log_likelihood(X, z, scale, noise)
        for scale, noise in candidates()
    ]
    assert differences == pytest.approx([differences[0]] * len(differences), abs=1e-7)


@pytest.mark.parametrize(
    ("noise", "weights"), [(0.4, (1.0, 0.5, 0.0, 0.0, 0.0)), (0.1, (1.0, 0.5, 1.5, -1.0, 0.8)), (0.2, (0.0,) * 5)]
)
def test_surrogate_scales_are_the_likeliest_ones(noise: float, weights: tuple[float, ...]) -> None:
    X, z = data(40, noise, weights)
    found = Surrogate.fitted(X, z, SCALE, FLEXIBLE)
    scale, noise = max(candidates(), key=lambda pair: log_likelihood(X, z, *pair))
    assert found.noise == noise
    assert found.scale.tolist() == scale.tolist()
    assert found.noise == pytest.approx(noise)


def test_surrogate_without_data_is_the_prior() -> None:
    found = Surrogate.fitted(np.empty((0, 5)), np.empty(0), SCALE, FLEXIBLE)
    assert found.weights().tolist() == [0.0] * 5
    _, deviation = found.predict(np.eye(5))
    assert deviation == pytest.approx(found.scale)
    assert found.scale[~FLEXIBLE] == pytest.approx(SCALE[~FLEXIBLE])


def test_surrogate_draws_have_the_mean_and_the_covariance_of_the_posterior() -> None:
    X, z = data(6, 0.4)
    found = Surrogate.fitted(X, z, SCALE, FLEXIBLE)
    covariance = np.linalg.inv(np.diag(found.scale**-2.0) + X.T @ X / found.noise**2)
    drawn = found.drawn(np.random.default_rng(0), 200_000)
    assert drawn.shape == (200_000, 5)
    deviations = np.sqrt(np.diag(covariance))
    assert (np.abs(drawn.mean(axis=0) - found.weights()) < 0.02 * deviations).all()
    assert (np.abs(np.cov(drawn.T) - covariance) < 0.02 * np.outer(deviations, deviations)).all()
