from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.errors import QueryError
from rank_search.pareto import dominance, dominates, hypervolume, nondominated
from tests.store.store_tools import beats, slow_front

few = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 1.5, math.inf, -math.inf])


@st.composite
def tables(draw: st.DrawFn) -> list[list[float]]:
    width = draw(st.integers(1, 5))
    return draw(st.lists(st.lists(few, min_size=width, max_size=width), min_size=1, max_size=25))


@given(tables())
def test_nondominated_is_the_slow_front(losses: list[list[float]]) -> None:
    assert np.flatnonzero(nondominated(losses)).tolist() == slow_front(losses)


@given(tables())
def test_dominates_agrees_with_its_definition(losses: list[list[float]]) -> None:
    for one, other in itertools.product(losses[:6], repeat=2):
        assert dominates(one, other) == beats(one, other)


def test_a_row_with_nan_is_on_no_front_and_dominates_nothing() -> None:
    assert nondominated([[math.nan, 0.0], [5.0, 5.0]]).tolist() == [False, True]
    assert not dominates((math.nan, 0.0), (5.0, 5.0))
    assert not dominates((5.0, 5.0), (math.nan, 6.0))


def test_no_rows() -> None:
    assert nondominated(np.empty((0, 3))).tolist() == []
    assert hypervolume(np.empty((0, 2)), (1, 1), (0, 0)) == 0.0


@pytest.mark.parametrize("losses", [[1.0, 2.0], [[]], np.zeros((2, 2, 2))])
def test_what_is_no_table_is_refused(losses: object) -> None:
    with pytest.raises(QueryError, match="a row for each trial"):
        nondominated(losses)


@given(st.integers(1, 4), st.data())
def test_hypervolume_is_the_share_of_a_grid_that_is_dominated(width: int, data: st.DataObject) -> None:
    # Corners on a grid of cells: counting the cells is the hypervolume.
    corner = st.lists(st.integers(-1, 5), min_size=width, max_size=width)
    corners = data.draw(st.lists(corner, min_size=1, max_size=6))
    cells = list(itertools.product(range(4), repeat=width))
    covered = sum(any(all(c <= x for c, x in zip(row, cell, strict=True)) for row in corners) for cell in cells)
    scale, shift = np.arange(1, width + 1) * 2.5, np.arange(width) - 1.0
    losses = np.array(corners) * scale + shift
    found = hypervolume(losses, reference=4 * scale + shift, ideal=shift)
    assert found == pytest.approx(covered / len(cells))


def test_hypervolume_of_the_ideal_is_all_and_of_nan_or_infinity_nothing() -> None:
    assert hypervolume([[0.0, -3.0]], (1, 1), (0, 0)) == 1.0
    assert hypervolume([[-math.inf, -math.inf]], (1, 1), (0, 0)) == 1.0
    assert hypervolume([[math.nan, 0.0], [math.inf, 0.0], [1.0, 0.0]], (1, 1), (0, 0)) == 0.0


@pytest.mark.parametrize(("reference", "ideal"), [((1,), (0, 0)), ((1, 1), (0, 1)), ((1, math.nan), (0, 0))])
def test_a_box_that_is_none_is_refused(reference: tuple[float, ...], ideal: tuple[float, ...]) -> None:
    with pytest.raises(QueryError, match="ideal"):
        hypervolume([[0.5, 0.5]], reference, ideal)


def test_inputs_are_left_as_they_are() -> None:
    losses = np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 3.0]])
    before = losses.copy()
    nondominated(losses)
    hypervolume(losses, (4, 4), (0, 0))
    assert (losses == before).all()


def test_the_examples_run() -> None:
    assert doctest.testmod(dominance).failed == 0


def test_an_empty_table_has_no_front_and_no_volume() -> None:
    for empty in ([], np.zeros((0, 2))):
        assert nondominated(empty).tolist() == []
        assert hypervolume(empty, (1.0, 1.0), (0.0, 0.0)) == 0.0
    with pytest.raises(QueryError, match="2 expected"):
        hypervolume(np.zeros((0, 2)), (1.0,), (0.0,))
