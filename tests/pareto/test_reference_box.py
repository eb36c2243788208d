"""The box that hypervolumes are measured in."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.errors import QueryError
from rank_search.pareto import ReferenceBox, reference_box
from rank_search.point import Objective

UP = Objective("accuracy", "maximize")
UNIT = ReferenceBox((0.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("objective", "dense", "wanted", "sides"),
    [
        (Objective("macs"), 500.0, {}, (0.0, 500.0)),
        (Objective("latency_ratio"), 1.0, {}, (0.0, 1.0)),
        (Objective("macs"), 500.0, {"macs": 300.0}, (0.0, 300.0)),
        (Objective("error"), 0.05, {}, (0.0, 0.15)),
        (Objective("loss"), 2.0, {}, (0.0, 3.0)),
        (Objective("log_likelihood"), -2.0, {}, (-2.0, -1.0)),
        (UP, 0.9, {}, (-1.0, -0.45)),
        (UP, 0.9, {"accuracy": 0.6}, (-1.0, -0.6)),
        (UP, 30.0, {}, (-30.0, -15.0)),
        (Objective("error"), 0.0, {"error": 0.0}, (0.0, 1e-12)),
    ],
)
def test_the_box_of_an_objective_goes_from_the_ideal_to_the_reference(
    objective: Objective, dense: float, wanted: dict[str, float], sides: tuple[float, float]
) -> None:
    found = ReferenceBox.of([Objective("params"), objective], {"params": 7.0, objective.name: dense}, wanted)
    assert found.column(0) == ReferenceBox((0.0,), (7.0,))
    assert (*found.column(1).ideal, *found.column(1).reference) == pytest.approx(sides)


def test_the_box_around_boxes_is_the_smallest_that_holds_them() -> None:
    boxes = [ReferenceBox((0.0, 1.0), (5.0, 6.0)), ReferenceBox((-1.0, 2.0), (4.0, 9.0))]
    assert ReferenceBox.around(boxes) == ReferenceBox((-1.0, 1.0), (5.0, 9.0))
    assert ReferenceBox.around(boxes[:1]) == boxes[0]


def test_gains_go_from_the_reference_to_the_ideal_and_shares_the_other_way() -> None:
    box = ReferenceBox((-1.0, 0.0), (3.0, 10.0))
    losses = np.array([[-1.0, 0.0], [1.0, 5.0], [3.0, 10.0], [7.0, -10.0]])
    assert box.gain(losses).tolist() == [[1.0, 1.0], [0.5, 0.5], [0.0, 0.0], [-1.0, 2.0]]
    assert box.share(losses).tolist() == [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [2.0, -1.0]]
    assert box.gain(np.zeros((5, 0, 2))).shape == (5, 0, 2)


@given(st.integers(1, 4), st.data())
def test_hypervolume_is_the_share_of_a_grid_that_is_dominated(width: int, data: st.DataObject) -> None:
    # Corners on a grid of cells: counting the cells is the hypervolume.
    corner = st.lists(st.integers(-1, 5), min_size=width, max_size=width)
    corners = data.draw(st.lists(corner, min_size=1, max_size=6))
    cells = list(itertools.product(range(4), repeat=width))
    covered = sum(any(all(c <= x for c, x in zip(row, cell, strict=True)) for row in corners) for cell in cells)
    scale, shift = np.arange(1, width + 1) * 2.5, np.arange(width) - 1.0
    losses = np.array(corners) * scale + shift
    before = losses.copy()
    found = ReferenceBox(tuple(shift), tuple(4 * scale + shift)).hypervolume(losses)
    assert found == pytest.approx(covered / len(cells))
    assert (losses == before).all()


def test_hypervolume_of_the_ideal_is_all_and_of_nan_or_infinity_nothing() -> None:
    assert UNIT.hypervolume([[0.0, -3.0]]) == 1.0
    assert UNIT.hypervolume([[-math.inf, -math.inf]]) == 1.0
    assert UNIT.hypervolume([[math.nan, 0.0], [math.inf, 0.0], [1.0, 0.0]]) == 0.0


@pytest.mark.parametrize("empty", [[], np.zeros((0, 2))])
def test_hypervolume_of_an_empty_table_is_zero(empty: object) -> None:
    assert UNIT.hypervolume(empty) == 0.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ideal", "reference", "said"),
    [
        ((0, 0), (1,), "An ideal point of 2 and a reference point of 1 losses"),
        ((0, 1), (1, 1), "is not worse than the ideal"),
        ((0, 0), (1, math.nan), "is not worse than the ideal"),
    ],
)
def test_a_box_without_an_inside_is_refused(ideal: tuple[float, ...], reference: tuple[float, ...], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        ReferenceBox(ideal, reference)


@pytest.mark.parametrize("losses", [np.zeros((0, 3)), [[0.5]], [[0.1, 0.2, 0.3]]])
def test_losses_of_other_objectives_do_not_fit_a_box(losses: object) -> None:
    with pytest.raises(QueryError, match="do not fit a box of 2"):
        UNIT.hypervolume(losses)  # type: ignore[arg-type]


def test_the_examples_of_the_box_run() -> None:
    assert doctest.testmod(reference_box).failed == 0
