"""The spread within a front."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.search.epsilon_net import Losses, farthest

Vector = tuple[int, ...]
many = settings(max_examples=150, deadline=None)


def vectors(most: int = 40) -> st.SearchStrategy[list[Vector]]:
    """Few different values, so that there are ties and equal vectors."""

    def of_length(objectives: int) -> st.SearchStrategy[list[Vector]]:
        return st.lists(st.tuples(*[st.integers(0, 6)] * objectives), min_size=1, max_size=most)

    return st.integers(1, 4).flatmap(of_length)


def columns(losses: list[Vector]) -> Losses:
    return np.array(losses, dtype=float).T


def spread(losses: Losses, chosen: set[int]) -> list[float]:
    """Distance of each vector from the nearest chosen one, in spans."""
    spans = [max(row) - min(row) or 1 for row in losses.tolist()]
    points = [[value / span for value, span in zip(point, spans, strict=True)] for point in losses.T.tolist()]
    return [min(sum((a - b) ** 2 for a, b in zip(x, points[c], strict=True)) for c in chosen) for x in points]


@many
@given(losses=vectors(), data=st.data())
def test_farthest_is_the_vector_farthest_from_its_nearest_chosen_one(losses: list[Vector], data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, len(losses) - 1), max_size=len(losses) - 1))
    found = farthest(columns(losses), np.array([each in chosen for each in range(len(losses))]))
    assert found not in chosen
    if chosen:
        distances = spread(columns(losses), chosen)
        best = max(distance for each, distance in enumerate(distances) if each not in chosen)
        assert distances[found] == pytest.approx(best)
    else:
        assert losses[found] == min(losses)
        assert found == losses.index(min(losses))


@many
@given(losses=vectors(), factors=st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=4), data=st.data())
def test_farthest_does_not_depend_on_units(losses: list[Vector], factors: list[float], data: st.DataObject) -> None:
    chosen = np.array([data.draw(st.booleans()) for _ in losses])
    chosen[data.draw(st.integers(0, len(losses) - 1))] = False
    scale = np.array(factors[: len(losses[0])])[:, None]
    assert farthest(columns(losses), chosen) == farthest(columns(losses) * scale, chosen)


def test_farthest_takes_the_first_of_equally_far_ones() -> None:
    corners: Any = columns([(0, 0), (3, 3), (0, 3), (3, 0)])
    assert farthest(corners, np.array([True, True, False, False])) == 2
    assert farthest(columns([(1, 1)] * 3), np.array([True, False, False])) == 1
