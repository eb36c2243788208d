"""What the surrogate sees, and that it learns from it which errors count."""

from __future__ import annotations

import numpy as np
import pytest

from rank_search.search.features import LEAST_ERROR, LEAST_WEIGHT, Features
from rank_search.search.surrogate import Surrogate


def rows(errors: np.ndarray, kinds: np.ndarray | None = None, kinds_of: int = 1, budget: float = 1.0) -> np.ndarray:
    features = Features(errors.shape[1], kinds_of, 0)
    kinds = np.zeros(errors.shape, dtype=np.intp) if kinds is None else kinds
    return features.rows(errors, kinds, np.full((len(errors), 2), 0.5), np.empty((len(errors), 0)), budget)


def test_feature_row_of_an_example() -> None:
    features = Features(groups=2, kinds=2, penalties=1)
    kinds, kept = np.array([[1, 0]]), np.array([[0.5, 0.25]])
    (row,) = features.rows(np.array([[0.1, 0.3]]), kinds, kept, np.array([[0.4]]), 0.1)
    total = 0.4 + LEAST_ERROR
    log = np.log(total)
    shares = [0.1 / total, 0.3 / total]
    expected = [1, log, log**2, *shares, shares[1], shares[0], np.log(0.5), np.log(0.25), 0.4, 0.16, np.log(0.1)]
    assert row == pytest.approx(expected)
    assert features.scale.size == features.flexible.size == row.size
    assert np.flatnonzero(features.flexible).tolist() == [3, 4, 5, 6]


def test_features_of_no_error_and_nothing_kept_are_finite() -> None:
    features = Features(2, 1, 0)
    found = features.rows(np.zeros((1, 2)), np.zeros((1, 2), np.intp), np.zeros((1, 2)), np.empty((1, 0)), 0.0)
    assert np.isfinite(found).all()


def test_feature_weights_recover_the_order_in_which_errors_count() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([0.2, 3.0, 1.0, 0.6, 2.0])
    errors = rng.uniform(0.0, 1.0, (600, 5)) * rng.uniform(0.05, 1.0, (600, 1))
    X, features = rows(errors), Features(5, 1, 0)
    surrogate = Surrogate.fitted(X, np.log(errors @ counts), features.scale, features.flexible)
    weights = features.weights(surrogate.weights()[None])
    assert weights.shape == (1, 5, 1)
    assert np.argsort(weights[0, :, 0]).tolist() == np.argsort(counts).tolist()
    relative = weights[0, :, 0] / weights[0, :, 0].mean()
    assert relative == pytest.approx(counts / counts.mean(), abs=0.35)


def test_feature_weights_tell_a_factorization_whose_errors_count_more() -> None:
    rng = np.random.default_rng(1)
    errors, kinds = rng.uniform(0.01, 1.0, (500, 4)), rng.integers(0, 2, (500, 4))
    features = Features(4, 2, 0)
    z = np.log((errors * np.where(kinds == 1, 2.0, 0.7)).sum(axis=1))
    surrogate = Surrogate.fitted(rows(errors, kinds, 2), z, features.scale, features.flexible)
    weights = features.weights(surrogate.weights()[None])[0]
    assert (weights[:, 1] > 1.5 * weights[:, 0]).all()


def test_feature_weights_are_one_before_any_data_and_never_negative() -> None:
    features = Features(3, 2, 1)
    learned = np.zeros((2, features.scale.size))
    learned[1, 3] = -100.0
    found = features.weights(learned)
    assert found.shape == (2, 3, 2)
    assert (found[0] == 1).all()
    assert (found[1, 0] == LEAST_WEIGHT).all()
    assert (found[1, 1:] == 1).all()
