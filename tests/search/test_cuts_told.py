"""Cuts of trained models: points that nobody asked for, which samplers are told, or only know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rank_search.point import Choice, Outcome, Point, State
from rank_search.search import SearchTrial
from tests.search.test_searcher import LADDERS, Make, drive, measure, searcher

SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "auto"},
    {"sampler": "tpe", "seeds": LADDERS},
    {"sampler": "nsga2", "options": {"population_size": 4}},
    {"sampler": "random"},
]


def cut_of(made: Any, past: SearchTrial, number: int) -> SearchTrial:
    """The trial's point with every value halved, as the store gives it."""
    layers = {
        name: choice
        if choice.is_dense
        else Choice(choice.factorization, {axis: max(1, value // 2) for axis, value in choice.values.items()})
        for name, choice in past.point.layers.items()
    }
    point = Point(layers, past.point.penalties)
    sampler = {"label": f"cut of trial {past.number}", "coordinates": {}, "layer_costs": {}}
    return SearchTrial(number, point, sampler, measure(made[1], point), 0.1, is_cut=True)


def with_cuts(made: Any, resume: bool) -> tuple[list[Point], list[Point]]:
    """Sixteen trials, each with a cut; the searcher is a new one half-way, or the same."""
    asked, known, own, cuts = searcher(made), list[SearchTrial](), list[Point](), list[Point]()
    for place in range(16):
        if resume and place == 8:
            asked = searcher(made)
            asked.feed(known)
        (past,) = drive(made, asked, [len(known)])
        found = cut_of(made, past, len(known) + 1)
        own.append(past.point)
        if found.point.key not in {each.point.key for each in [*known, past]}:
            asked.feed([past, found])
            known += [past, found]
            cuts.append(found.point)
        else:
            known.append(past)
    return own, cuts


@pytest.mark.parametrize("settings", SAMPLERS, ids=lambda each: str(each["sampler"]))
def test_a_cut_is_never_asked_for_and_a_resumed_search_is_the_same(make: Make, settings: dict[str, Any]) -> None:
    made = make(**settings)
    own, cuts = with_cuts(made, resume=False)
    assert cuts
    assert not {point.key for point in own} & {cut.key for cut in cuts}
    assert with_cuts(made, resume=True) == (own, cuts)


def test_a_cut_that_diverged_says_nothing_to_samplers_of_coordinates(make: Make) -> None:
    made = make(sampler="tpe", seeds=LADDERS)
    asked = searcher(made)
    (past,) = drive(made, asked, [0])
    asked.feed([past, replace(cut_of(made, past, 1), outcome=Outcome(State.INFEASIBLE, {"macs": 1.0}))])
    assert drive(made, asked, [2, 3])


def test_auto_learns_of_cuts(make: Callable[..., Any]) -> None:
    made = make(sampler="auto")
    alone, told = searcher(made), searcher(made)
    first = drive(made, alone, range(6))
    told.feed(first)
    cuts = [cut_of(made, past, 100 + past.number) for past in first]
    new = [cut for cut in cuts if cut.point.key not in {each.point.key for each in first}]
    told.feed(new)
    asked = told.ask(200)
    assert asked is not None
    assert asked.point.key not in {cut.point.key for cut in new}
    assert set(told._auto._seen) == {each.point.key for each in [*first, *new]}  # type: ignore[attr-defined]
