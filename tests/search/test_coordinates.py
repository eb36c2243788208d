"""Coordinates to points and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from rank_search.options import CostModel
from rank_search.point import Choice, Point
from rank_search.search import SearchSettings, Space, coordinates
from rank_search.search.coordinates import coordinates_of, point_at

Make = Callable[..., tuple[Space, CostModel, SearchSettings]]
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def values_of(distribution: BaseDistribution) -> st.SearchStrategy[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return st.sampled_from(distribution.choices)
    assert isinstance(distribution, FloatDistribution)
    return st.floats(distribution.low, distribution.high)


def any_params(space: Space) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: values_of(each) for name, each in coordinates(space).items()})


def test_names_of_coordinates(make: Make) -> None:
    space, _, _ = make(entropy={"low": 1e-4, "high": 1e-1}, orthogonality=0.5)
    assert list(coordinates(space)) == [
        "weakening",
        *("factorization:stem", "multiplier:stem", "multiplier:stem:2"),
        *("factorization:body", "multiplier:body", "multiplier:body:2"),
        *("factorization:neck", "multiplier:neck", "multiplier:neck:2"),
        *("factorization:head", "multiplier:head"),
        "entropy",
    ]
    assert coordinates(space)["factorization:head"] == CategoricalDistribution(("svd", "dense"))
    assert coordinates(space)["multiplier:body"] == FloatDistribution(-3, 3)


@many
@given(data=st.data(), round_to=st.sampled_from([1, 4, 8]))
def test_coordinates_of_a_point_are_of_the_same_point(make: Make, data: st.DataObject, round_to: int) -> None:
    space, costs, _ = make(
        round_to=round_to,
        multiplier=1.0,
        weakening=(0.2, 1.7),
        entropy={"low": 1e-4, "high": 1e-1},
        orthogonality={"low": 1e-2, "high": 10},
    )
    point = point_at(space, costs, data.draw(any_params(space)))
    back = coordinates_of(space, point)
    assert all(each._contains(each.to_internal_repr(back[name])) for name, each in coordinates(space).items())
    if not clipped(space, back):
        assert point_at(space, costs, back) == point


def clipped(space: Space, params: dict[str, Any]) -> bool:
    return any(abs(params[name]) == space.multiplier for group in space.groups for name in group.multipliers)


@many
@given(data=st.data())
def test_multipliers_of_a_points_coordinates_are_rarely_at_the_limit(make: Make, data: st.DataObject) -> None:
    """What was made with small multipliers has multipliers no larger."""
    space, costs, _ = make()
    params = data.draw(any_params(space))
    for name in params:
        if name.startswith("multiplier"):
            params[name] /= 3
    point = point_at(space, costs, params)
    back = coordinates_of(space, point)
    largest = max(abs(back[name]) for name in back if name.startswith("multiplier"))
    rounding = math.log2(2 / 1.5)  # of one and a half to two, the worst there is
    assert largest <= 1 + rounding + 1e-9


@many
@given(data=st.data())
def test_values_obey_the_formula(make: Make, data: st.DataObject) -> None:
    space, costs, _ = make(("tucker2",), round_to=4)
    params = data.draw(any_params(space))
    point = point_at(space, costs, params)
    for group in space.groups:
        choice = point.layers[group.name]
        for multiplier, axis, value in group.chosen(group.name, choice):
            w, prior = params["weakening"], axis.prior
            exact = axis.high ** (1 - w) * prior**w if w <= 1 else prior ** (2 - w) * axis.low ** (w - 1)
            wanted = min(max(exact * 2 ** params[multiplier], axis.low), axis.high)
            assert isinstance(value, int)
            assert axis.low <= value <= axis.high
            multiples = [each for each in range(int(axis.low), int(axis.high) + 1) if each % 4 == 0]
            if multiples:
                assert value in multiples
                assert abs(value - wanted) <= min(abs(each - wanted) for each in multiples) + 1e-9
            else:
                assert value == axis.high


@many
@given(data=st.data())
def test_no_layer_of_a_point_is_larger_than_dense(make: Make, data: st.DataObject) -> None:
    space, costs, _ = make()
    point = point_at(space, costs, data.draw(any_params(space)))
    for name, choice in point.layers.items():
        dense = costs.cost(Point({}))
        chosen = costs.cost(Point({name: choice}))
        if not choice.is_dense:
            assert chosen["params"] < dense["params"]
            assert chosen["macs"] < dense["macs"]


def test_zero_weakening_is_dense_and_uniform_weakening_has_no_multipliers(make: Make) -> None:
    space, costs, _ = make(("svd",))
    params: dict[str, Any] = {
        name: 0.0 if isinstance(each, FloatDistribution) else "svd" for name, each in coordinates(space).items()
    }
    assert all(choice.is_dense for choice in point_at(space, costs, params).layers.values())
    point = point_at(space, costs, params | {"weakening": 1.3})
    back = coordinates_of(space, point)
    assert back["weakening"] == pytest.approx(1.3, abs=0.25)  # up to the rounding of the smallest ranks
    assert point_at(space, costs, back) == point


def test_the_weakening_makes_the_largest_multiplier_smallest(make: Make) -> None:
    space, costs, _ = make(("svd",))
    ranks = {"stem": 3, "body": 9, "neck": 2, "head": 11}
    point = Point({name: Choice("svd", {"rank": rank}) for name, rank in ranks.items()})

    def largest(weakening: float) -> float:
        axes = {group.name: group.axes[group.name]["svd"][0] for group in space.groups}
        return max(abs(math.log2(ranks[name] / axis.at(weakening))) for name, axis in axes.items())

    found = coordinates_of(space, point)["weakening"]
    assert largest(float(found)) <= min(largest(step / 500) for step in range(1001)) + 1e-9
    assert point_at(space, costs, coordinates_of(space, point)).layers == point.layers


def test_tied_layers_share_their_coordinates(make: Make) -> None:
    space, costs, _ = make(groups={"stem": ["stem"], "trunk": ["body", "neck"], "head": ["head"]})
    assert "multiplier:trunk" in coordinates(space)
    assert "multiplier:body" not in coordinates(space)
    params: dict[str, Any] = {
        name: -1.0 if isinstance(each, FloatDistribution) else "svd" for name, each in coordinates(space).items()
    }
    point = point_at(space, costs, params | {"weakening": 1.0})
    priors = {layer: by_name["svd"][0].prior for layer, by_name in space.groups[1].axes.items()}
    assert {name: point.layers[name].values["rank"] for name in ("body", "neck")} == {
        name: round(prior / 2) for name, prior in priors.items()
    }


@pytest.mark.parametrize(("coordinate", "strength"), [(-1, 0.1), (-4, 1e-4), (-4.01, 0.0), (-4.6, 0.0)])
def test_the_margin_below_a_range_means_off(make: Make, coordinate: float, strength: float) -> None:
    space, costs, _ = make(entropy={"low": 1e-4, "high": 1e-1})
    assert coordinates(space)["entropy"] == FloatDistribution(-4.6, -1)
    params: dict[str, Any] = {name: each.to_external_repr(0.0) for name, each in coordinates(space).items()}
    assert point_at(space, costs, params | {"entropy": coordinate}).penalties == {
        "orthogonality": 0.0,
        "entropy": strength,
    }


def test_sparsity_is_a_coordinate_as_the_other_strengths_are(make: Make) -> None:
    space, costs, _ = make(("svd",), sparsity={"low": 0.1, "high": 10})
    assert coordinates(space)["sparsity"] == FloatDistribution(-1.4, 1)
    params: dict[str, Any] = {
        name: -1.0 if isinstance(each, FloatDistribution) else "svd" for name, each in coordinates(space).items()
    }
    point = point_at(space, costs, params | {"weakening": 1.0, "sparsity": 0.5})
    assert point.penalties == {"orthogonality": 0.0, "entropy": 0.0, "sparsity": 3.162}
    assert coordinates_of(space, point)["sparsity"] == pytest.approx(0.5, abs=1e-3)
    without, _, _ = make()
    assert Space.from_json(space.to_json()) == space
    assert "sparsity" not in without.to_json()["penalties"]


@pytest.mark.parametrize("penalty", ["orthogonality", "sparsity"])
def test_penalties_on_factors_of_a_dense_point_are_off(make: Make, penalty: str) -> None:
    """They would act on nothing; two such points would be the same model."""
    space, costs, _ = make(**{penalty: {"low": 1e-2, "high": 10}})
    dense: dict[str, Any] = dict.fromkeys(coordinates(space), "dense")
    params = {
        name: 0.0 if isinstance(each, FloatDistribution) else "dense" for name, each in coordinates(space).items()
    }
    assert dense.keys() == params.keys()
    assert point_at(space, costs, params).penalties[penalty] == 0.0


def test_real_valued_axes_reaching_zero(make: Make) -> None:
    """An axis such as a threshold: straight lines instead of geometric ones, no rounding to whole numbers."""
    space, _, _ = make(("svd",))
    axis = replace(space.groups[0].axes["stem"]["svd"][0], low=0.0, high=1.0, prior=0.4, integer=False)
    assert axis.at(0.5) == pytest.approx(0.7)
    assert axis.snap(0.123456, round_to=8) == 0.1235
    assert axis.multiplier(0.2, 1.0) == pytest.approx(-1.0)
    assert axis.multiplier(0.0, 1.0) == -math.inf
    assert axis.multiplier(0.0, 2.0) == 0.0
