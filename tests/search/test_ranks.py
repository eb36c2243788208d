"""Non-dominated sorting of what comes one after the other, and the spread within a front."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.search.ranks import Losses, Ranks, farthest

Vector = tuple[int, ...]
many = settings(max_examples=150, deadline=None)


def vectors(most: int = 40) -> st.SearchStrategy[list[Vector]]:
    """Few different values, so that there are ties and equal vectors."""

    def of_length(objectives: int) -> st.SearchStrategy[list[Vector]]:
        return st.lists(st.tuples(*[st.integers(0, 6)] * objectives), min_size=1, max_size=most)

    return st.integers(1, 4).flatmap(of_length)


def dominates(one: Vector, other: Vector) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def peeled(losses: list[Vector]) -> list[int]:
    """The level of each by taking fronts away, one after the other."""
    levels: dict[int, int] = {}
    while len(levels) < len(losses):
        rest = [each for each in range(len(losses)) if each not in levels]
        front = [each for each in rest if not any(dominates(losses[other], losses[each]) for other in rest)]
        depth = max(levels.values(), default=-1) + 1
        levels.update(dict.fromkeys(front, depth))
    return [levels[each] for each in range(len(losses))]


def columns(losses: list[Vector]) -> Losses:
    return np.array(losses, dtype=float).T


@many
@given(losses=vectors(), data=st.data())
def test_levels_are_those_of_peeling(losses: list[Vector], data: st.DataObject) -> None:
    """In whatever portions and order they come."""
    order = data.draw(st.permutations(range(len(losses))))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(losses)), max_size=5)) | {0, len(losses)})
    shuffled = [losses[each] for each in order]
    levels = Ranks(len(losses[0]))
    for start, end in pairwise(cuts):
        if start < end:
            levels.add(columns(shuffled[start:end]))
    assert levels.of.tolist() == peeled(shuffled)


def test_a_newcomer_pushes_down_only_what_it_has_to() -> None:
    levels = Ranks(2)
    levels.add(columns([(3, 3), (4, 4), (1, 9), (5, 9)]))
    assert levels.of.tolist() == [0, 1, 0, 2]
    levels.add(columns([(2, 4)]))
    assert levels.of.tolist() == [0, 1, 0, 2, 0]
    levels.add(columns([(2, 2)]))
    assert levels.of.tolist() == [1, 2, 0, 3, 1, 0]


def spread(losses: Losses, chosen: set[int]) -> list[float]:
    """Distance of each vector from the nearest chosen one, in spans."""
    spans = [max(row) - min(row) or 1 for row in losses.tolist()]
    points = [[value / span for value, span in zip(point, spans, strict=True)] for point in losses.T.tolist()]
    return [min(sum((a - b) ** 2 for a, b in zip(x, points[c], strict=True)) for c in chosen) for x in points]


@many
@given(losses=vectors(), data=st.data())
def test_the_next_one_is_the_farthest(losses: list[Vector], data: st.DataObject) -> None:
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
def test_units_do_not_matter(losses: list[Vector], factors: list[float], data: st.DataObject) -> None:
    chosen = np.array([data.draw(st.booleans()) for _ in losses])
    chosen[data.draw(st.integers(0, len(losses) - 1))] = False
    scale = np.array(factors[: len(losses[0])])[:, None]
    assert farthest(columns(losses), chosen) == farthest(columns(losses) * scale, chosen)


def test_of_equally_far_ones_the_first_is_taken() -> None:
    corners: Any = columns([(0, 0), (3, 3), (0, 3), (3, 0)])
    assert farthest(corners, np.array([True, True, False, False])) == 2
    assert farthest(columns([(1, 1)] * 3), np.array([True, False, False])) == 1
