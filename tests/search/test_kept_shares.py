"""Every point that coordinates stand for keeps the budget, and is the largest of its proportions that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rank_search.options import OptionTable
from rank_search.point import Choice, Point
from rank_search.search import KeptShares, SearchSettings, Space
from tests.small_space import LAYERS, Made, options_of

Make = Callable[..., Made]
MILD: dict[str, Any] = {"objectives": ["error"], "constraints": ["params <= 0.7 * dense"], "sampler": "bolaco"}
SHARES = [f"share:{name}" for name in LAYERS]


@pytest.fixture
def made(make: Make) -> tuple[Space, OptionTable, SearchSettings]:
    found = make(("svd",), **MILD)
    return found[0], options_of(found), found[2]


def dearer(table: OptionTable, layer: str, choice: Choice) -> int:
    """The parameters of the layer with one rank more, or of the dense one if there is no larger rank that saves."""
    options = table.of[layer]
    most = max(int(each.choices[layer].values["rank"]) for each in options[1:])
    if choice.is_dense or choice.values["rank"] >= most:
        return options[0].params
    return table.costs.layer_cost(layer, Choice("svd", {"rank": int(choice.values["rank"]) + 1})).params


def kept(table: OptionTable, point: Point) -> float:
    return table.total(table.describe(point))["params"] / table.dense["params"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0.2, 1.0), min_size=4, max_size=4))
def test_every_point_keeps_the_budget_and_uses_it(
    made: tuple[Space, OptionTable, SearchSettings], shares: list[float]
) -> None:
    table, system = made[1], KeptShares(*made)
    point = system.point_at({"budget": 0.7, **dict(zip(SHARES, shares, strict=True))})
    assert kept(table, point) <= 0.7
    steps_up = [dearer(table, name, point.layers[name]) for name in LAYERS]
    assert table.rest["params"] + sum(steps_up) > 0.7 * table.dense["params"]


def test_a_group_that_keeps_more_beside_the_others_keeps_more(made: tuple[Space, OptionTable, SearchSettings]) -> None:
    table, system = made[1], KeptShares(*made)
    even = {"budget": 0.7, **dict.fromkeys(SHARES, 0.6)}
    one, other = (system.point_at({**even, "share:neck": share}) for share in (0.2, 1.0))
    places = [[*LAYERS].index(name) for name in ("neck", "body")]
    neck, body = ([table.describe(point)[place].params for point in (one, other)] for place in places)
    assert neck[0] < neck[1]
    assert body[0] > body[1]


def test_the_budget_is_a_coordinate_only_where_it_is_not_given(make: Make) -> None:
    def budget(**changes: Any) -> tuple[float, float]:
        space, _, search = found = make(("svd",), **{**MILD, **changes})
        each = KeptShares(space, options_of(found), search).distributions()["budget"]
        return each.low, each.high  # type: ignore[attr-defined]

    assert budget() == (0.7, 0.7)
    low, high = budget(objectives=["error", "params"])
    assert low < 0.2
    assert high == 0.7
    assert budget(constraints=[])[1] == 1.0
    assert budget(constraints=["macs <= 0.5 * dense", "macs <= 0.4 * dense"]) == (0.4, 0.4)
    impossible = budget(constraints=["params <= 1"])
    assert impossible[0] == impossible[1] > 0.05  # the least that there is


def test_points_are_found_again_by_their_coordinates(made: tuple[Space, OptionTable, SearchSettings]) -> None:
    system = KeptShares(*made)
    point = system.point_at({"budget": 0.7, **dict(zip(SHARES, (0.3, 0.5, 0.8, 0.4), strict=True))})
    again = system.point_at(system.coordinates_of(point))
    assert kept(made[1], again) <= 0.7
    assert {name: choice.is_dense for name, choice in again.layers.items()} == {
        name: choice.is_dense for name, choice in point.layers.items()
    }
    dense = system.coordinates_of(Point(dict.fromkeys(LAYERS, Choice())))
    assert dense == {"budget": 0.7, **dict.fromkeys(SHARES, 1.0)}


def test_strengths_of_penalties_are_searched_beside_the_shares(make: Make) -> None:
    found = make(("svd",), **MILD, orthogonality={"low": 1e-3, "high": 1.0}, entropy=0.5)
    system = KeptShares(found[0], options_of(found), found[2])
    assert "orthogonality" in system.distributions()
    params = {"budget": 0.7, **dict.fromkeys(SHARES, 0.5)}
    place = system.distributions()["orthogonality"].high  # type: ignore[attr-defined]
    assert system.point_at({**params, "orthogonality": place}).penalties == pytest.approx(
        {"orthogonality": 1.0, "entropy": 0.5}
    )
