"""A form that is slower than its dense layer is worth nothing, where speed is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import rank_search as rs
from rank_search.layers import Cost, Layer, load_plugin
from rank_search.options import CostModel, Forms, measure_forms
from rank_search.options.grouping import build_groups
from rank_search.point import Choice
from rank_search.search import SearchSettings, Space, coordinates, seed_points
from rank_search.search.coordinates import point_at

Make = Callable[..., tuple[Space, CostModel, SearchSettings]]


def by_macs(slope: float) -> Callable[[Layer, Choice], float]:
    """Tucker-2 is always slower; the SVD takes longer with its rank."""

    def time(layer: Layer, choice: Choice) -> float:
        return 1.5 if choice.factorization == "tucker2" else slope * float(choice.values["rank"])

    return time


pairs = st.lists(st.tuples(st.floats(0, 1e12), st.floats(0.01, 100)), min_size=1, max_size=5, unique_by=lambda p: p[0])


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), pairs.map(sorted).map(tuple))))
def test_form_speeds_come_back_from_json_as_they_were(measured: dict[str, Any]) -> None:
    forms = Forms(measured)
    assert Forms.from_json(json.loads(json.dumps(forms.to_json(), sort_keys=True))) == forms


@pytest.mark.parametrize(
    ("macs", "ratio"), [(50, 0.5), (100, 0.5), (150, 0.75), (200, 1.0), (250, 1.5), (300, 2.0), (1e9, 2.0)]
)
def test_form_speeds_interpolate_linearly(macs: float, ratio: float) -> None:
    forms = Forms({"conv": {"svd": ((100, 0.5), (200, 1.0), (300, 2.0))}})
    assert forms.ratio("conv", "svd", macs) == ratio


def test_form_speeds_of_what_was_not_measured_are_unknown() -> None:
    forms = Forms({"conv": {"svd": ((100, 0.5),)}})
    assert forms.ratio("conv", "cp", 100) is None
    assert forms.ratio("fc", "svd", 100) is None


def test_forms_that_save_no_macs_are_not_timed(make: Make) -> None:
    space, costs, _ = make()
    timed: list[Choice] = []
    forms = measure_forms(space.groups, costs, lambda layer, choice: timed.append(choice) or 0.5)
    assert len(timed) == sum(len(known) for by_name in forms.measured.values() for known in by_name.values())
    for layer, by_name in forms.measured.items():
        dense = costs.layer_cost(layer, Choice()).macs
        for known in by_name.values():
            assert [macs for macs, _ in known] == sorted(macs for macs, _ in known)
            assert all(macs < dense for macs, _ in known)


def test_layers_of_one_geometry_are_timed_once(make: Make) -> None:
    shape = {"padding": ((1, 1), (1, 1)), "inputs": ((1, 16, 8, 8),)}
    twins = {name: Layer(name, "conv2d", (16, 16, 3, 3), **shape) for name in ("one", "two")}
    space, costs, _ = make(layers=twins)
    timed: list[Choice] = []
    forms = measure_forms(space.groups, costs, lambda layer, choice: timed.append(choice) or 0.5)
    assert len(timed) == len({str(choice) for choice in timed})
    assert forms.measured["one"] == forms.measured["two"]


def test_forms_that_cannot_be_timed_count_as_faster(make: Make) -> None:
    space, costs, _ = make()
    forms = measure_forms(space.groups, costs, lambda layer, choice: None)
    assert forms == Forms()
    assert costs.with_forms(forms).saves("neck", Choice("tucker2", {"rank_out": 4, "rank_in": 4}))


def test_a_slower_form_becomes_dense(make: Make) -> None:
    space, costs, settings = make()
    params = {name: getattr(each, "low", None) for name, each in coordinates(space).items()}
    params |= {"weakening": 1.0, "factorization:neck": "tucker2", "factorization:body": "svd"}
    params |= {name: 0.0 for name in params if name.startswith("multiplier")}
    params |= {"factorization:stem": "dense", "factorization:head": "svd"}
    before = point_at(space, costs, params)
    assert before.layers["neck"].factorization == "tucker2"
    slower = costs.with_forms(measure_forms(space.groups, costs, by_macs(0.01)))
    after = point_at(space, slower, params)
    assert after.layers == {**before.layers, "neck": Choice()}
    for seed in seed_points(space, slower, settings):
        assert all(choice.factorization != "tucker2" for choice in seed.point.layers.values())


def test_slower_forms_depend_on_the_rank(make: Make) -> None:
    space, costs, _ = make()
    slower = costs.with_forms(measure_forms(space.groups, costs, by_macs(0.1)))  # faster below rank 10
    assert slower.saves("neck", Choice("svd", {"rank": 9}))
    assert not slower.saves("neck", Choice("svd", {"rank": 11}))
    assert costs.saves("neck", Choice("svd", {"rank": 11}))


def test_to_look_rows_up_is_not_timed_and_its_parameters_decide() -> None:
    model = nn.Sequential(nn.Embedding(40, 16), nn.Linear(16, 40)).eval()
    table = rs.options(model, example=torch.zeros(1, 5, dtype=torch.long))
    layers = table.fits.layers
    groups = build_groups(layers, {"svd": load_plugin("svd")}, {name: (name,) for name in layers}, None)
    costs = CostModel(layers, {"svd": load_plugin("svd")}, Cost(0, 0))
    asked: list[str] = []

    def time(layer: Layer, choice: Choice) -> float:
        asked.append(layer.kind)
        return 2.0

    forms = measure_forms(groups, costs, time)
    assert {*asked} == {"linear"}
    assert list(forms.measured) == ["1"]
    slow = costs.with_forms(forms)
    assert [slow.saves(name, Choice("svd", {"rank": 4})) for name in layers] == [True, False]
    assert [costs.saves("0", Choice("svd", {"rank": rank})) for rank in (11, 12)] == [True, False]  # 640 / 56 = 11.4
