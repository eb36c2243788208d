"""Allocations within bounds on the cost of the whole model, from a table with made-up errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.errors import LayerError, QueryError
from rank_search.layers import Cost, load_plugin
from rank_search.options import Allocation, CostModel, OptionTable, allocate, build_groups
from rank_search.options.allocation import sweep
from rank_search.point import Point
from tests.small_space import LAYERS, Made, made_up_error, options_of

Make = Callable[..., Made]


def few() -> OptionTable:
    """Three layers with some options each, every fourth of the grid: small enough for brute force."""
    layers = {name: LAYERS[name] for name in ("stem", "body", "head")}
    plugins = {"svd": load_plugin("svd")}
    groups = build_groups(layers, plugins)
    ranges = {layer: by_name for group in groups for layer, by_name in group.axes.items()}

    def error(layer: str, choice: object) -> float:
        rank = getattr(choice, "values", {}).get("rank")
        return 0.0 if rank is None else (1 - rank / ranges[layer]["svd"][0].high) ** (1 + len(layer) % 3)

    table = OptionTable(groups, CostModel(layers, plugins, Cost(100, 1000)), error)
    table.of = {name: (options[0], *options[1::4]) for name, options in table.of.items()}
    return table


TABLE = few()


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), -1, -0.5, "-2k", "inf"])
def test_a_bound_that_is_no_amount_is_refused(bound: float | str) -> None:
    with pytest.raises(QueryError, match="The bound on macs is"):
        allocate(TABLE, macs=bound)


SHARES = st.floats(0.05, 1.0)


def all_of(table: OptionTable) -> list[tuple[dict[str, float], float]]:
    """Costs and error of every combination."""
    found = []
    for chosen in itertools.product(*table.of.values()):
        bits = 32 * table.total(chosen)["params"]
        found.append(({**table.total(chosen), "bits": bits}, sum(each.error for each in chosen)))
    return found


@given(bounds=st.dictionaries(st.sampled_from(["params", "macs", "bits"]), SHARES, min_size=1))
def test_bounds_are_kept_with_the_least_error(bounds: Mapping[str, float]) -> None:
    dense = all_of(TABLE)[0][0]
    limits = {name: share * dense[name] for name, share in bounds.items()}
    possible = [
        error for cost, error in all_of(TABLE) if all(cost[name] <= limits[name] * (1 + 1e-12) for name in limits)
    ]
    if not possible:
        with pytest.raises(LayerError, match="No allocation keeps"):
            allocate(TABLE, **bounds)
        return
    found = allocate(TABLE, **bounds)
    assert found.error == pytest.approx(min(possible), abs=1e-12)
    assert found.gap == 0
    assert all(getattr(found, name) <= limit * (1 + 1e-12) for name, limit in limits.items())


def test_an_allocation_costs_what_its_point_is_counted_to_cost(make: Make) -> None:
    made = make()
    found = allocate(options_of(made), macs=0.4)
    assert made[1].cost(found.point) == {"params": found.params, "macs": found.macs}
    assert found.bits == 32 * found.params
    assert found.error == sum(made_up_error(made[0])(layer, choice) for layer, choice in found.layers.items())


@pytest.mark.parametrize("same", [0.5, "50%", "0.5 * dense"])
def test_a_share_may_be_written_as_in_a_study_file(same: float | str) -> None:
    assert allocate(TABLE, params=same) == allocate(TABLE, params=TABLE.dense["params"] // 2)


def test_a_bound_of_one_is_the_dense_cost_and_two_are_two_units() -> None:
    assert allocate(TABLE, macs=1).error == 0
    with pytest.raises(LayerError, match=r"No allocation keeps macs ≤ 2\. The least .* macs \(\d+\.\d% of dense\)"):
        allocate(TABLE, macs=2)


def test_bounds_that_only_break_together_say_what_each_reaches() -> None:
    with pytest.raises(LayerError, match=r"params ≤ 1 and macs ≤ 1\.1.*params .* macs .* each by itself"):
        allocate(TABLE, params="1", macs=1.1)


def test_what_is_no_amount_is_refused() -> None:
    with pytest.raises(QueryError, match="lots"):
        allocate(TABLE, macs="lots")


def test_without_a_bound_the_corners_of_the_front_come_from_the_dearest_on() -> None:
    front = allocate(TABLE)
    assert isinstance(front, tuple)
    assert front[0].error == 0
    assert all(
        one.error <= other.error and one.macs + one.params > other.macs + other.params
        for one, other in itertools.pairwise(front)
    )
    assert len(front) == len(sweep(TABLE, {"params": 0.5, "macs": 0.5}))
    assert all(allocate(TABLE, params=each.params, macs=each.macs).error <= each.error + 1e-12 for each in front)


def test_an_allocation_shows_itself() -> None:
    found: Allocation = allocate(TABLE, macs=0.3)
    assert f"{found.macs / TABLE.dense['macs']:.1%} of the macs; " in repr(found).replace(", ", "; ")
    for layer, choice in found.layers.items():
        assert layer in repr(found)
        assert choice.factorization in repr(found)
    assert found._repr_html_().count("<tr>") == 1 + len(found.layers)
    assert isinstance(found.point, Point)
