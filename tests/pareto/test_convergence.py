"""The share of the box after so many trials, and pairs of objectives, against the slow and obvious."""

from __future__ import annotations

import doctest
import importlib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.pareto import Panel, ReferenceBox, convergence, panels
from rank_search.point import Objective
from tests.store.store_tools import slow_front

BOX = ReferenceBox((0.0, 0.0), (8.0, 8.0))
vector = st.tuples(*[st.integers(0, 9).map(float)] * 2)


@given(st.lists(st.lists(vector, max_size=3), max_size=30))
def test_the_share_after_k_trials_is_that_of_the_first_k(results: list[list[tuple[float, float]]]) -> None:
    found = convergence(results, BOX)
    assert found.trials == tuple(range(1, len(results) + 1))
    for count, share in zip(found.trials, found.shares, strict=True):
        cells = itertools.product(range(8), repeat=2)
        first = list(itertools.chain(*results[:count]))
        covered = sum(any(row[0] <= x and row[1] <= y for row in first) for x, y in cells)
        assert share == pytest.approx(covered / 64)
    assert found.members == len(slow_front(list(itertools.chain(*results))))


def test_of_many_trials_few_moments_are_looked_at_and_those_that_are_asked_for() -> None:
    rng = random.Random(1)
    losses = [(rng.uniform(0, 9), rng.uniform(0, 9)) for _ in range(1000)]
    found = convergence([[each] for each in losses], BOX, also=[10, 777, 1001])
    assert len(found.trials) <= 162
    assert (found.trials[0], found.trials[-1]) == (1, 1000)
    assert {10, 777} < set(found.trials)
    for count in (1, 10, 777, 1000):
        assert found.after(count) == pytest.approx(BOX.hypervolume(losses[:count]))
    assert list(found.shares) == sorted(found.shares)
    assert found.after(0) == 0.0
    assert found.after(5000) == found.shares[-1]


def test_no_trials_and_trials_outside_the_box_have_no_share() -> None:
    assert convergence([], BOX).shares == ()
    assert convergence([[], [(9.0, 0.0)]], BOX).shares == (0.0, 0.0)
    assert convergence([[], [(9.0, 0.0)]], BOX).members == 1


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 5).map(float)), max_size=20))
def test_each_panel_has_the_front_of_its_two_measurements(trials: list[dict[str, float]]) -> None:
    found = panels([Objective("a"), Objective("b", "maximize"), Objective("c")], trials)
    assert [(each.upwards, each.across) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for each in found:
        places = [place for place, row in enumerate(trials) if {each.across, each.upwards} <= row.keys()]
        signs = [-1.0 if name == "b" else 1.0 for name in (each.across, each.upwards)]
        table = [[signs[0] * trials[k][each.across], signs[1] * trials[k][each.upwards]] for k in places]
        assert set(each.front) == {places[k] for k in slow_front(table)}
        assert list(each.front) == sorted(each.front, key=lambda place: (trials[place][each.across], place))


def test_one_objective_has_no_panel() -> None:
    assert panels([Objective("a")], [{"a": 1.0}]) == []
    assert panels([Objective("a"), Objective("b")], []) == [Panel("b", "a", ())]


@pytest.mark.parametrize("module", ["convergence", "panels"])
def test_the_examples_of_convergence_and_panels_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"rank_search.pareto.{module}")).failed == 0
