"""Constraints: what is broken, and by how much."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution

from rank_search.errors import StudyFileError
from rank_search.point import Bound, State
from rank_search.search import check, check_counted, coordinates, require_possible, seed_points
from rank_search.search.constraints import least_costs, violations
from rank_search.search.coordinates import point_at
from tests.small_space import LADDERS, LAYERS, Made

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
        outcome.reason == "macs <= 0.5 * dense does not hold: macs is 150; params <= 400 does not hold: params is 500"
    )


def test_measured_constraints_are_broken_by_what_was_not_measured() -> None:
    bounds = [Bound.parse("error <= 0.1")]
    assert check(bounds, {"error": 0.1}, DENSE) == ()
    assert check(bounds, {}, DENSE) == ("error <= 0.1 does not hold: error is nan",)


@pytest.mark.parametrize("reach", [{}, {"weakening": [0, 1], "multiplier": 0.5}, {"round_to": 8}])
def test_the_least_costs_are_those_of_the_cheapest_point(make: Callable[..., Made], reach: dict[str, Any]) -> None:
    space, costs, _ = make(layers={name: LAYERS[name] for name in ("body", "head")}, **reach)
    ends = [
        [each.choices if isinstance(each, CategoricalDistribution) else (each.low, each.high)]
        for each in coordinates(space).values()
    ]
    corners = itertools.product(*(values for (values,) in ends))
    points = [point_at(space, costs, dict(zip(coordinates(space), corner, strict=True))) for corner in corners]
    found = [costs.cost(point) for point in points]
    assert least_costs(space, costs) == {name: min(cost[name] for cost in found) for name in ("params", "macs")}


def test_tied_layers_are_made_small_together(make: Callable[..., Made]) -> None:
    alone, costs, _ = make()
    tied, _, _ = make(groups={"stem": ("stem",), "body": ("body", "neck"), "head": ("head",)})
    assert least_costs(tied, costs) == least_costs(alone, costs)


def test_what_no_point_keeps_is_refused(make: Callable[..., Made]) -> None:
    space, costs, _ = make()
    least, dense = least_costs(space, costs)["macs"], costs.dense["macs"]
    for possible in (f"macs <= {least}", f"macs >= {dense}", "macs <= 1 * dense", "error <= 0", "bits <= 1"):
        require_possible([Bound.parse(possible)], space, costs, [])
    for impossible in (f"macs < {least}", f"macs > {dense}", "macs <= 0.5", "params < 0.001 * dense"):
        with pytest.raises(StudyFileError, match="none keeps"):
            require_possible([Bound.parse("error <= 1"), Bound.parse(impossible)], space, costs, [])
    with pytest.raises(StudyFileError, match=r"'macs <= 0.5 \* dense'"):
        require_possible([Bound.parse("macs <= 0.5")], space, costs, [])


def test_a_seed_point_may_be_what_keeps_a_bound(make: Callable[..., Made]) -> None:
    space, costs, settings = make(weakening=[0, 0.1], multiplier=0, seeds=LADDERS)
    bound = Bound.parse("macs <= 0.6 * dense")
    seeds = seed_points(space, costs, settings)
    with pytest.raises(StudyFileError):
        require_possible([bound], space, costs, [])
    require_possible([bound], space, costs, seeds)
