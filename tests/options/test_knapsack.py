"""The pick of least error within limits, against all combinations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.options import knapsack
from rank_search.options.knapsack import Array, pick

NUMBERS = st.integers(0, 6).map(float)  # small whole numbers: sums are exact, and ties are frequent
Problem = tuple[list[Array], list[Array], Array]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to four groups of up to five options, with one to three limits."""
    limits, groups = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    options = [draw(st.integers(1, 5)) for _ in range(groups)]
    row = st.lists(NUMBERS, min_size=limits, max_size=limits)
    costs = [np.array(draw(st.lists(row, min_size=count, max_size=count))) for count in options]
    errors = [np.array(draw(st.lists(NUMBERS, min_size=count, max_size=count))) for count in options]
    most = st.lists(st.integers(-1, 14).map(float), min_size=limits, max_size=limits)
    return costs, errors, np.array(draw(most))


def within(problem: Problem) -> dict[tuple[int, ...], float]:
    """Σ error of every combination that keeps the limits."""
    costs, errors, limits = problem
    picks = itertools.product(*(range(len(each)) for each in errors))
    return {
        chosen: sum(float(error[place]) for error, place in zip(errors, chosen, strict=True))
        for chosen in picks
        if (sum(cost[place] for cost, place in zip(costs, chosen, strict=True)) <= limits).all()
    }


@given(problems())
def test_the_pick_has_the_least_error_of_all_combinations(problem: Problem) -> None:
    possible, found = within(problem), pick(*problem)
    if not possible:
        assert found is None
        return
    assert found is not None
    assert possible[found.chosen] == found.error == min(possible.values())
    assert found.gap == 0


@given(problem=problems())
def test_the_gap_covers_what_was_left_out(problem: Problem) -> None:
    """With room for one partial sum the pick may be worse, and says by how much at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "WIDTHS", (1,))
        found = pick(*problem)
    possible = within(problem)
    if found is not None:
        assert possible[found.chosen] == found.error
        assert found.error - found.gap <= min(possible.values()) + 1e-9
        assert found.gap >= 0


def test_a_limit_that_is_met_exactly_is_kept() -> None:
    """0.1 + 0.2 is more than 0.3 by rounding alone."""
    found = pick([np.array([[0.1]]), np.array([[0.2]])], [np.zeros(1), np.zeros(1)], np.array([0.3]))
    assert found is not None
    assert found.chosen == (0, 0)


def test_no_groups_keep_every_limit_that_is_not_negative() -> None:
    nothing = pick([], [], np.array([0.0]))
    assert nothing is not None
    assert nothing.chosen == ()
    assert pick([], [], np.array([-1.0])) is None


def test_large_costs_are_told_apart_to_the_last_unit() -> None:
    """A solver of linear programs would take a limit that is broken by one in 10¹² as kept."""
    costs = [np.array([[1e12], [1.0]]), np.array([[1e12], [1.0]])]
    errors = [np.array([0.0, 1.0]), np.array([0.0, 1.0])]
    enough, one_less = pick(costs, errors, np.array([1e12 + 1])), pick(costs, errors, np.array([1e12 - 1]))
    assert enough is not None
    assert one_less is not None
    assert (enough.error, one_less.error) == (1.0, 2.0)
