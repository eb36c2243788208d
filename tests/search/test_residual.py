"""What the regression leaves, against the same formulas solved naively."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from rank_search.search.features import Features
from rank_search.search.residual import AMPLITUDES, NOISES, REACHES, Corrected, Residual, nearest
from rank_search.search.surrogate import Surrogate

NEW = np.random.default_rng(9).uniform(size=(7, 3))


def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    positions = rng.uniform(size=(count, 3))
    return positions, 0.3 * np.sin(5 * positions[:, 0]) + 0.05 * rng.standard_normal(count)


def kernel(some: np.ndarray, others: np.ndarray, reach: float, amplitude: float) -> np.ndarray:
    squares = ((some[:, None] - others[None]) ** 2).sum(axis=2)
    return np.asarray(amplitude**2 * np.exp(-squares / (2 * reach**2)))


def test_residual_is_the_same_where_divide_and_conquer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Residual.fitted(*data(12))

    def fails(matrix: np.ndarray) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigh", fails)
    found = Residual.fitted(*data(12))
    assert (found.reach, found.amplitude, found.noise) == (expected.reach, expected.amplitude, expected.noise)
    np.testing.assert_allclose(found.mean(NEW), expected.mean(NEW), rtol=1e-9)


@pytest.mark.parametrize("count", [1, 3, 12, 60])
def test_residual_is_the_likeliest_process_and_its_mean_the_textbook_one(count: int) -> None:
    """Rasmussen and Williams, equations 2.25 and 5.8."""
    positions, residuals = data(count)

    def covariance(reach: float, amplitude: float, noise: float) -> np.ndarray:
        return kernel(positions, positions, reach, amplitude) + noise**2 * np.eye(count)

    def evidence(three: tuple[float, float, float]) -> float:
        return float(multivariate_normal(np.zeros(count), covariance(*three)).logpdf(residuals))

    best = max(itertools.product(REACHES, AMPLITUDES, NOISES), key=evidence)
    found = Residual.fitted(positions, residuals)
    assert (found.reach, found.amplitude, found.noise) == best
    across = kernel(NEW, positions, *best[:2])
    assert found.mean(NEW) == pytest.approx(across @ np.linalg.inv(covariance(*best)) @ residuals, abs=1e-8)


def test_residual_without_trials_expects_zero() -> None:
    assert Residual.fitted(np.empty((0, 3)), np.empty(0)).mean(NEW).tolist() == [0.0] * 7


def test_residuals_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Residual.fitted(np.zeros((1, 3)), np.array([np.nan]))


def test_corrected_surrogate_predicts_what_neither_part_does_alone() -> None:
    positions, bump = data(60)
    X = np.column_stack([np.ones(60), positions])
    z = 2.0 + positions @ np.array([1.0, -1.0, 0.5]) + 3 * bump
    linear = Surrogate.fitted(X[:40], z[:40], np.full(4, 3.0), np.zeros(4, dtype=np.bool_))
    left = z[:40] - linear.predict(X[:40])[0]
    mean, deviation = Corrected(linear, Residual.fitted(positions[:40], left)).predict(X[40:], positions[40:])
    plain, alone = linear.predict(X[40:])
    assert np.mean((mean - z[40:]) ** 2) < 0.6 * np.mean((plain - z[40:]) ** 2)
    assert deviation.tolist() == alone.tolist()


@given(st.integers(0, 30), st.integers(0, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_nearest_positions_are_nearer_than_the_others(some: int, others: int, count: int, rng_seed: int) -> None:
    rng = np.random.default_rng(rng_seed)
    positions, to = rng.standard_normal((some, 2)), rng.standard_normal((others, 2))
    found = nearest(positions, to, count).tolist()
    assert found == sorted(set(found))
    assert len(found) == min(count, some)
    if others and len(found) < some:
        distance = ((positions[:, None] - to[None]) ** 2).sum(axis=2).min(axis=1)
        assert max(distance[found]) <= min(np.delete(distance, found)) + 1e-9


def test_feature_positions_of_an_example() -> None:
    features = Features(groups=2, kinds=2, penalties=2)
    errors, penalties = np.array([[0.04, 0.25]]), np.array([[0.4, 0.7]])
    rows = features.rows(errors, np.array([[1, 0]]), np.array([[0.5, 0.25]]), penalties, 0.1)
    assert features.positions(rows) == pytest.approx(np.array([[0.2, 0.5, 0.4, 0.7, np.log(0.1)]]))
