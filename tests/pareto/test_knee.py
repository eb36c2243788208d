"""Choosing one member of a front by its losses."""

from __future__ import annotations

import doctest
import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.pareto import closest, knee, nondominated

losses = st.lists(st.lists(st.integers(0, 20).map(float), min_size=3, max_size=3), min_size=1, max_size=12)


@settings(deadline=None)
@given(losses)
def test_knee_is_farthest_below_the_plane_of_the_extremes(table: list[list[float]]) -> None:
    kept = [row for row, good in zip(table, nondominated(table), strict=True) if good]
    columns = list(zip(*kept, strict=True))
    spans = [(min(column), max(column)) for column in columns]

    def height(row: list[float]) -> float:
        """Signed distance to the plane Σx = 1, times √m."""
        return sum((value - low) / (high - low) for value, (low, high) in zip(row, spans, strict=True) if high > low)

    assert height(kept[knee(kept)]) == pytest.approx(min(map(height, kept)))


@settings(deadline=None)
@given(losses, st.lists(st.floats(0.5, 50), min_size=3, max_size=3), st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_knee_does_not_depend_on_units(table: list[list[float]], units: list[float], zeros: list[float]) -> None:
    changed = [[unit * value + zero for unit, value, zero in zip(units, row, zeros, strict=True)] for row in table]
    heights = [sum(row) for row in _scaled(table)]
    assert heights[knee(changed)] == pytest.approx(min(heights), abs=1e-6)


def _scaled(table: list[list[float]]) -> list[list[float]]:
    columns = list(zip(*table, strict=True))
    boxes = [(min(column), max(column) - min(column) or 1.0) for column in columns]
    return [[(value - low) / span for value, (low, span) in zip(row, boxes, strict=True)] for row in table]


@given(losses, st.data())
def test_closest_finds_a_member_that_is_wished_for(table: list[list[float]], data: st.DataObject) -> None:
    rows = [dict(zip("abc", row, strict=True)) for row in table]
    wish = data.draw(st.sampled_from(rows))
    assert rows[closest(rows, wish)] == wish


def test_the_examples_of_the_knee_run() -> None:
    assert doctest.testmod(importlib.import_module("rank_search.pareto.knee")).failed == 0
