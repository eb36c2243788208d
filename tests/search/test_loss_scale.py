"""The scale of a loss: logarithms where it is small or has no ceiling, hazards of rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.pareto import ReferenceBox
from rank_search.point import Objective
from rank_search.search.loss_scale import FLOOR, LossScale

DEEPEST = math.inf


@given(st.floats(-5, 5), st.floats(0.01, 10), st.floats(0, 3), st.sampled_from([4.0, 30.0, DEEPEST]))
def test_what_it_gives_back_is_what_it_was_given(ideal: float, width: float, share: float, widest: float) -> None:
    scale = LossScale(ReferenceBox((ideal,), (ideal + width,)), ideal + widest * width)
    loss = np.array([ideal + share * width])
    assert scale.losses(scale.of(loss)) == pytest.approx(loss, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_it_rises_with_the_loss(losses: list[float]) -> None:
    z = LossScale(ReferenceBox((0.0,), (0.3,)), 1.0).of(np.array(sorted(losses)))
    assert np.isfinite(z).all()
    assert (np.diff(z) >= 0).all()


def test_small_losses_and_those_without_a_ceiling_are_logarithms() -> None:
    side, small, any_loss = ReferenceBox((0.0,), (2.0,)), np.array([0.0, 1e-3]), np.array([0.0, 1e-3, 1.0, 400.0])
    assert LossScale(side, 4000.0).of(small) == pytest.approx(np.log(small / 2 + FLOOR), abs=1e-5)
    assert LossScale(side).of(any_loss) == pytest.approx(np.log(any_loss / 2 + FLOOR), abs=1e-5)


def test_wrong_answers_of_independent_cuts_add_up() -> None:
    """Two cuts, each of which turns some of the right answers wrong: of both together the hazard is the sum."""
    scale = LossScale(ReferenceBox((0.0,), (0.5,)), 1.0)
    one, other = 0.3, 0.6
    both = 1 - (1 - one) * (1 - other)
    hazards = np.exp(scale.of(np.array([one, other, both])))
    assert hazards[2] == pytest.approx(hazards[0] + hazards[1], rel=0.03)  # but for the floor


def test_losses_beyond_either_end_count_as_the_end_and_nothing_overflows() -> None:
    for worst in (4.0, DEEPEST):
        scale = LossScale(ReferenceBox((0.0,), (2.0,)), worst)
        assert scale.of(np.array([-1.0])) == pytest.approx([math.log(FLOOR)], rel=1e-2)
        losses = scale.losses(np.array([-1e9, 1e9]))
        assert losses[0] == 0.0
        assert np.isfinite(losses).all()
    scale = LossScale(ReferenceBox((0.0,), (0.5,)), 1.0)
    assert scale.of(np.array([1.0, 3.0])).tolist() == [scale.of(np.array([0.999]))[0]] * 2
    assert scale.losses(np.array([30.0])) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("objective", "dense", "reference", "worst"),
    [
        (Objective("error"), 0.08, 0.9, 1.0),
        (Objective("disagreement"), 0.0, 0.6, 1.0),
        (Objective("accuracy", "maximize"), 0.92, -0.1, 0.0),
        (Objective("error"), 0.08, 0.18, DEEPEST),  # a box that ends far below it
        (Objective("accuracy", "maximize"), 0.92, -0.82, DEEPEST),
        (Objective("accuracy", "maximize"), 92.0, -46.0, DEEPEST),  # in percent
        (Objective("error"), 0.95, 1.05, DEEPEST),  # a box beyond the ceiling
        (Objective("perplexity"), 0.9, 1.35, DEEPEST),
        (Objective("macs"), 1e6, 1e6, DEEPEST),
    ],
)
def test_rates_have_a_ceiling_where_the_box_comes_near_it(
    objective: Objective, dense: float, reference: float, worst: float
) -> None:
    side = ReferenceBox((min(-1.0, -dense) if objective.direction == "maximize" else 0.0,), (reference,))
    assert LossScale.of_objective(objective, dense, side).worst == worst
