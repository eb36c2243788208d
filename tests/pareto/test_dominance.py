"""Dominance, the rows that nothing dominates, and the ranks of all, against the slow and obvious."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.errors import QueryError
from rank_search.pareto import dominance, dominates, nondominated, ranks
from tests.store.store_tools import beats, slow_front

few = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 1.5, math.inf, -math.inf])


@st.composite
def tables(draw: st.DrawFn) -> list[list[float]]:
    width = draw(st.integers(1, 5))
    return draw(st.lists(st.lists(few, min_size=width, max_size=width), min_size=1, max_size=25))


def peeled(losses: list[list[float]]) -> list[int]:
    """The rank of each by taking fronts away, one after the other."""
    found: dict[int, int] = {}
    for depth in itertools.count():
        rest = [place for place in range(len(losses)) if place not in found]
        if not rest:
            return [found[place] for place in range(len(losses))]
        found |= {rest[place]: depth for place in slow_front([losses[place] for place in rest])}
    raise AssertionError


@given(tables())
def test_nondominated_is_the_slow_front(losses: list[list[float]]) -> None:
    assert np.flatnonzero(nondominated(losses)).tolist() == slow_front(losses)


@given(tables())
def test_dominates_agrees_with_its_definition(losses: list[list[float]]) -> None:
    for one, other in itertools.product(losses[:6], repeat=2):
        assert dominates(one, other) == beats(one, other)


@given(tables())
def test_ranks_are_those_of_taking_fronts_away(losses: list[list[float]]) -> None:
    """With ties, equal rows and infinities."""
    assert ranks(losses).tolist() == peeled(losses)


def test_ranks_of_a_chain_of_fronts() -> None:
    chain = [[3.0, 3.0], [4.0, 4.0], [1.0, 9.0], [5.0, 9.0]]
    assert ranks(chain).tolist() == [0, 1, 0, 2]
    assert ranks([*chain, [2.0, 2.0], [2.0, 2.0]]).tolist() == [1, 2, 0, 3, 0, 0]


def test_a_row_with_nan_is_on_no_front_dominates_nothing_and_has_no_rank() -> None:
    assert nondominated([[math.nan, 0.0], [5.0, 5.0]]).tolist() == [False, True]
    assert not dominates((math.nan, 0.0), (5.0, 5.0))
    assert not dominates((5.0, 5.0), (math.nan, 6.0))
    with pytest.raises(QueryError, match="have a NaN"):
        ranks([[math.nan, 0.0]])


@pytest.mark.parametrize("empty", [[], np.zeros((0, 3))])
def test_an_empty_table_has_no_front_and_no_ranks(empty: object) -> None:
    assert nondominated(empty).tolist() == []  # type: ignore[arg-type]
    assert ranks(empty).tolist() == []  # type: ignore[arg-type]


@pytest.mark.parametrize("losses", [[1.0, 2.0], [[]], np.zeros((2, 2, 2))])
def test_losses_that_are_no_table_are_refused(losses: object) -> None:
    for function in (nondominated, ranks):
        with pytest.raises(QueryError, match="are no table, which has a row for each trial"):
            function(losses)  # type: ignore[arg-type]


def test_the_losses_given_are_not_changed() -> None:
    losses = np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 3.0]])
    before = losses.copy()
    nondominated(losses)
    ranks(losses)
    assert (losses == before).all()


def test_the_examples_of_dominance_run() -> None:
    assert doctest.testmod(dominance).failed == 0
