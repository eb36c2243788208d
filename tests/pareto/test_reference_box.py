"""The box that hypervolumes are measured in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.pareto import box_of
from rank_search.pareto.reference_box import ObjectiveBox
from rank_search.point import Objective

UP = Objective("accuracy", "maximize")


@pytest.mark.parametrize(
    ("objective", "dense", "wanted", "box"),
    [
        (Objective("macs"), 500.0, None, ObjectiveBox(0.0, 500.0)),
        (Objective("latency_ratio"), 1.0, None, ObjectiveBox(0.0, 1.0)),
        (Objective("macs"), 500.0, 300.0, ObjectiveBox(0.0, 300.0)),
        (Objective("error"), 0.05, None, ObjectiveBox(0.0, 0.15)),
        (Objective("loss"), 2.0, None, ObjectiveBox(0.0, 3.0)),
        (Objective("log_likelihood"), -2.0, None, ObjectiveBox(-2.0, -1.0)),
        (UP, 0.9, None, ObjectiveBox(-1.0, -0.45)),
        (UP, 0.9, 0.6, ObjectiveBox(-1.0, -0.6)),
        (UP, 30.0, None, ObjectiveBox(-30.0, -15.0)),
        (Objective("error"), 0.0, 0.0, ObjectiveBox(0.0, 1e-12)),
    ],
)
def test_where_losses_lie(objective: Objective, dense: float, wanted: float | None, box: ObjectiveBox) -> None:
    found = box_of(objective, dense, wanted)
    assert (found.ideal, found.reference) == pytest.approx((box.ideal, box.reference))


def test_gains_go_from_the_reference_to_the_ideal() -> None:
    assert ObjectiveBox(-1.0, 3.0).gain(np.array([-1.0, 1.0, 3.0, 7.0])).tolist() == [1.0, 0.5, 0.0, -1.0]


@given(st.floats(-5, 5), st.floats(0.01, 10), st.floats(0, 3))
def test_logarithms_and_losses_are_inverse_to_each_other(ideal: float, width: float, share: float) -> None:
    box = ObjectiveBox(ideal, ideal + width)
    loss = np.array([ideal + share * width])
    assert box.exponential(box.logarithm(loss, 0.01), 0.01) == pytest.approx(loss, abs=1e-9)


def test_what_is_beyond_the_ideal_counts_as_the_ideal_and_nothing_overflows() -> None:
    box = ObjectiveBox(0.0, 2.0)
    assert box.logarithm(np.array([-1.0, 0.0]), 0.1) == pytest.approx([np.log(0.1)] * 2)
    losses = box.exponential(np.array([-1e9, 1e9]), 0.1)
    assert losses[0] == 0.0
    assert np.isfinite(losses).all()
