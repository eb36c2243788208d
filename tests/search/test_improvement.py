"""Expected improvement of hypervolume, against the exact hypervolume."""

from __future__ import annotations

import moocore
import numpy as np
import pytest

from rank_search.search.improvement import directions, expected_improvement, lengths

Array = np.ndarray


def exact(gains: Array) -> float:
    """Hypervolume of gains, which are better the larger, above 0."""
    kept = gains[(gains > 0).all(axis=1)]
    return float(moocore.hypervolume(-kept, ref=np.zeros(gains.shape[1]))) if len(kept) else 0.0


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("known", [0, 4])
def test_expected_improvement_is_proportional_to_what_is_added_to_the_hypervolume(objectives: int, known: int) -> None:
    rng = np.random.default_rng(objectives + known)
    front, samples = rng.uniform(0.1, 0.7, (known, objectives)), rng.uniform(0.2, 1.0, (3, 9, objectives))
    found = expected_improvement(samples, front, directions(rng, 60_000, objectives))
    added = np.array(
        [
            np.mean([exact(np.vstack([front, sample[None]])) - exact(front) for sample in samples[:, place]])
            for place in range(9)
        ]
    )
    factor = found.sum() / added.sum()
    assert found == pytest.approx(factor * added, rel=0.05, abs=0.01 * found.max())
    # c_m of Zhang and Golovin: π^(m/2) / (2^m·Γ(m/2 + 1)), a quarter circle and an eighth of a ball.
    assert 1 / factor == pytest.approx({2: np.pi / 4, 3: np.pi / 6}[objectives], rel=0.02)


def test_expected_improvement_of_dominated_and_outside_points_is_zero() -> None:
    front = np.array([[0.5, 0.5], [0.2, 0.9]])
    candidates = np.array([[0.4, 0.5], [0.5, 0.5], [-0.1, 2.0], [0.0, 1.0], [0.6, 0.4]])
    found = expected_improvement(candidates[None], front, directions(np.random.default_rng(0), 500, 2))
    assert found[:4].tolist() == [0, 0, 0, 0]
    assert found[4] > 0


def test_directions_are_unit_vectors_in_the_orthant_and_even() -> None:
    drawn = directions(np.random.default_rng(0), 20_000, 3)
    assert (drawn > 0).all()
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(1)
    assert drawn.mean(axis=0) == pytest.approx([0.5] * 3, abs=0.01)  # Archimedes: each is uniform on 0 to 1


def test_lengths_are_those_of_the_boxes_below() -> None:
    gains, toward = np.array([[0.3, 0.6, 0.9]]), np.array([[1.0, 2.0, 2.0]]) / 3
    assert lengths(gains, toward) == pytest.approx(min(0.9, 0.9, 1.35) ** 3)
