"""Points that were chosen before: each once, in their order, whoever else takes some of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rank_search.point import Choice, Outcome, Point, State
from rank_search.search import FixedPoints, SearchTrial


def points(count: int) -> list[SearchTrial]:
    return [
        SearchTrial(rank, Point({"layer": Choice("svd", {"rank": rank})}), {"label": f"confirms {rank}"})
        for rank in range(1, count + 1)
    ]


def asked(source: FixedPoints) -> list[int]:
    found = []
    while (trial := source.ask(len(found))) is not None:
        assert trial.number == len(found)
        found.append(int(trial.label.removeprefix("confirms ")))
    return found


@given(st.integers(0, 8), st.sets(st.integers(1, 8)))
def test_fixed_points_are_asked_in_order_but_for_those_that_are_known(count: int, elsewhere: set[int]) -> None:
    source, all_points = FixedPoints(points(count)), points(8)
    outcome = Outcome(State.COMPLETE, {"error": 0.1})
    source.feed(replace(all_points[rank - 1], outcome=outcome if rank % 2 else None) for rank in sorted(elsewhere))
    assert asked(source) == [rank for rank in range(1, count + 1) if rank not in elsewhere]
    assert source.ask(99) is None


def test_a_withdrawn_fixed_point_is_asked_again_unless_somebody_has_it() -> None:
    source = FixedPoints(points(2))
    first = source.ask(0)
    assert first is not None
    source.withdraw(first)
    assert source.ask(0) == first
    source.withdraw(first)
    source.feed([SearchTrial(0, first.point, {})])
    assert asked(source) == [2]
