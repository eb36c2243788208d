"""Constraints: what is broken, and by how much."""

from __future__ import annotations

import math

import pytest

from rank_search.point import Bound, State
from rank_search.search import check, check_counted, violations

DENSE = {"params": 1000.0, "macs": 200.0}


@pytest.mark.parametrize(
    ("bound", "measured", "violation"),
    [
        ("macs <= 0.5 * dense", {"macs": 150.0}, 0.5),
        ("macs <= 0.5 * dense", {"macs": 50.0}, -0.5),
        ("macs <= 100", {"macs": 100.0}, 0.0),
        ("macs < 100", {"macs": 100.0}, 1e-9),
        ("accuracy >= 0.8", {"accuracy": 0.6}, 0.25),
        ("accuracy > 0.8", {"accuracy": 0.9}, -0.125),
        ("error <= 0", {"error": 0.25}, 0.25),
        ("error <= 0.1", {}, 0.0),
        ("error <= 0.1", {"error": math.nan}, 1.0),
        ("error <= 0.1", {"error": math.inf}, 1.0),
        ("gain >= 0.1", {"gain": math.inf}, -1.0),
    ],
)
def test_violations_are_relative_to_the_limit(bound: str, measured: dict[str, float], violation: float) -> None:
    parsed = Bound.parse(bound)
    found = violations([parsed], measured, DENSE)
    assert list(found.values()) == pytest.approx([violation])
    if parsed.name in measured:
        assert (next(iter(found.values())) <= 0) == parsed.holds(measured, DENSE)


def test_counted_constraints_end_a_trial_before_training() -> None:
    bounds = [Bound.parse("macs <= 0.5 * dense"), Bound.parse("params <= 400"), Bound.parse("error <= 0.1")]
    assert check_counted(bounds, {"params": 400, "macs": 100}, DENSE) is None
    outcome = check_counted(bounds, {"params": 500, "macs": 150}, DENSE)
    assert outcome is not None
    assert outcome.state is State.INFEASIBLE
    assert outcome.measurements == {"params": 500, "macs": 150}
    assert (
        outcome.reason
        == "macs <= 0.5 * dense does not hold: macs is 150; params <= 400 does not hold: params is 500"
    )


def test_measured_constraints_are_broken_by_what_was_not_measured() -> None:
    bounds = [Bound.parse("error <= 0.1")]
    assert check(bounds, {"error": 0.1}, DENSE) == ()
    assert check(bounds, {}, DENSE) == ("error <= 0.1 does not hold: error is nan",)
