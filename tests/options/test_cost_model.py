"""Costs of points against counting the real model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rank_search.layers import Cost, DirectBases, Layer, count_params, factorize, load_plugin, take_inventory
from rank_search.layers.costs import count_macs
from rank_search.options import CostModel
from rank_search.point import Choice, Point
from tests.repeated import Multiplied, Repeated, Thresholded


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 24, 3, stride=2, bias=False),
        nn.Conv2d(24, 24, 3, groups=4),
        nn.Flatten(),
        nn.LazyLinear(20),
    ).eval()


POINTS = [
    {},
    {"0": Choice("svd", {"rank": 4})},
    {"0": Choice("svd", {"rank": 2}), "2": Choice("tucker2", {"rank_out": 5, "rank_in": 7})},
    {"2": Choice("svd", {"rank": 24}), "5": Choice("svd", {"rank": 3})},
    {"0": Choice(), "5": Choice("svd", {"rank": 20})},
]


@pytest.mark.parametrize("layers", POINTS, ids=range(len(POINTS)))
def test_cost_model_counts_as_the_real_factorized_model(model: nn.Module, layers: dict[str, Choice]) -> None:
    example = torch.zeros(1, 3, 12, 12)
    model(example)
    inventory = take_inventory(model, (example,))
    plugins = {name: load_plugin(name) for name in ("svd", "tucker2")}
    costs = CostModel(inventory.layers, plugins, inventory.rest)
    point = Point(layers)

    def bases(name: str) -> DirectBases:
        return DirectBases(model.get_submodule(name).get_parameter("weight"))

    real = factorize(model, point, inventory.layers, plugins, bases)
    assert costs.cost(point) == {"params": count_params(real), "macs": count_macs(real, [example])}
    assert costs.dense == {"params": count_params(model), "macs": count_macs(model, [example])}


def test_a_low_rank_saves_below_its_break_even_point(model: nn.Module) -> None:
    example = torch.zeros(1, 3, 12, 12)
    model(example)
    inventory = take_inventory(model, (example,))
    costs = CostModel(inventory.layers, {"svd": load_plugin("svd")}, inventory.rest)
    # 20 × 384 (6 × 4 × 4 from 24 channels at 4 × 4… whatever the flattening gives): r·(m + n) < m·n
    rows, columns = inventory.layers["5"].shape
    break_even = rows * columns // (rows + columns)
    assert costs.saves("5", Choice("svd", {"rank": break_even}))
    assert not costs.saves("5", Choice("svd", {"rank": break_even + 1}))
    assert not costs.saves("5", Choice())


def costs_of(layer: Layer, *asked: str) -> CostModel:
    """Of one layer, as a study that asks for these measurements judges it."""
    plugins = {"svd": load_plugin("svd"), "spatial": load_plugin("svd-spatial"), "tucker2": load_plugin("tucker2")}
    mine = {
        "repeated": Repeated,
        "multiplied": Multiplied,
        "thresholded": Thresholded,
        "soft": load_plugin("soft-rank"),
    }
    return CostModel({"layer": layer}, {**plugins, **mine}, Cost(0, 0), asked=asked)


CONV = Layer("layer", "conv2d", (12, 8, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 8, 6, 6),))
STRIDED = replace(CONV, stride=(2, 2))

ONLY_STORED = Choice("repeated", {"kept": 3})
FEWER_PARAMS = Choice("spatial", {"rank": 12})  # strided: 12 · (8·3 + 12·3) = 720 of 864 weights, and more MACs


@pytest.mark.parametrize(
    ("asked", "judged"),
    [
        ((), ("params", "macs")),
        (("error",), ("params", "macs")),
        (("error", "macs"), ("macs",)),
        (("latency",), ("macs",)),
        (("latency_ratio",), ("macs",)),
        (("params",), ("params",)),
        (("error", "bits"), ("params",)),
        (("nonzeros",), ("params",)),
        (("error", "macs", "bits"), ("params", "macs")),
        (("latency", "params"), ("params", "macs")),
    ],
)
def test_what_is_asked_for_decides_which_counts_judge(asked: tuple[str, ...], judged: tuple[str, ...]) -> None:
    assert tuple(costs_of(CONV, *asked).judged("layer", ONLY_STORED)) == judged


@pytest.mark.parametrize("choice", [ONLY_STORED, Choice("multiplied", {"kept": 3})])
def test_a_form_without_a_forward_of_its_own_has_the_macs_of_its_layer(choice: Choice) -> None:
    cost, dense = (costs_of(CONV).layer_cost("layer", each) for each in (choice, Choice()))
    assert (cost.params, cost.macs) == (3 * 8 * 9 + 12, dense.macs)
    assert dense.macs == 12 * 8 * 9 * 36


@pytest.mark.parametrize("asked", [("params",), ("error", "bits"), ("nonzeros",), ("macs", "params"), ()])
def test_a_form_that_only_stores_less_saves_where_that_is_asked_for(asked: tuple[str, ...]) -> None:
    assert costs_of(CONV, *asked).saves("layer", ONLY_STORED)
    assert not costs_of(CONV, *asked).saves("layer", Choice("repeated", {"kept": 12}))


def test_a_form_that_only_stores_less_saves_no_macs() -> None:
    assert not costs_of(CONV, "error", "macs").saves("layer", ONLY_STORED)
    assert not costs_of(CONV, "latency").saves("layer", ONLY_STORED)


@pytest.mark.parametrize(
    ("asked", "saves"),
    [((), False), (("macs",), False), (("macs", "params"), False), (("params",), True), (("bits",), True)],
)
def test_more_macs_for_fewer_params_save_where_only_these_are_asked_for(asked: tuple[str, ...], saves: bool) -> None:
    costs = costs_of(STRIDED, *asked)
    (params, all_params), (macs, all_macs) = costs_of(STRIDED).judged("layer", FEWER_PARAMS).values()
    assert params < all_params
    assert macs > all_macs
    assert costs.saves("layer", FEWER_PARAMS) is saves


@pytest.mark.parametrize("layer", [CONV, STRIDED, Layer("layer", "linear", (20, 30), inputs=((4, 30),))])
@pytest.mark.parametrize("asked", [(), ("error", "macs"), ("error", "macs", "bits")])
def test_low_rank_forms_save_where_they_have_fewer_of_both(layer: Layer, asked: tuple[str, ...]) -> None:
    costs = costs_of(layer, *asked)
    dense = costs.layer_cost("layer", Choice())
    for rank in range(1, min(layer.shape[:2]) + 1):
        for choice in (
            Choice("svd", {"rank": rank}),
            Choice("spatial", {"rank": rank}),
            Choice("tucker2", {"rank_out": rank, "rank_in": rank}),
        ):
            if len(layer.shape) == 4 or choice.factorization == "svd":
                cost = costs.layer_cost("layer", choice)
                assert costs.saves("layer", choice) == (cost.params < dense.params and cost.macs < dense.macs), choice


def test_what_training_makes_zero_is_worth_a_trial_where_it_may_count() -> None:
    choice = Choice("thresholded", {"start": 0.5})
    found = {
        asked: costs_of(CONV, "error", asked).saves("layer", choice)
        for asked in ("params", "macs", "bits", "nonzeros", "latency")
    }
    assert found == {"params": False, "macs": False, "bits": True, "nonzeros": True, "latency": False}
    assert costs_of(CONV, "bits", "macs").saves("layer", choice)  # not one MAC more


@pytest.mark.parametrize("asked", ["params", "macs", "bits", "nonzeros", "error"])
def test_a_rank_that_training_lowers_is_worth_a_trial_whatever_it_costs_before(asked: str) -> None:
    choice = Choice("soft", {"rank": 12, "folds": 5.0})
    costs = costs_of(CONV, "error", asked)
    assert costs.layer_cost("layer", choice).macs > costs.layer_cost("layer", Choice()).macs
    assert costs.saves("layer", choice)


def test_the_least_of_a_point_has_the_lowest_of_the_ranks_that_training_lowers() -> None:
    costs = costs_of(CONV)
    soft, plain = (
        Point({"layer": Choice("soft", {"rank": 12, "folds": 5.0})}),
        Point({"layer": Choice("svd", {"rank": 4})}),
    )
    # a map of 8·9 inputs, one of 12 outputs, 12 biases, and the threshold
    assert costs.least(soft) == {"params": 8 * 9 + 12 + 12 + 1, "macs": (8 * 9 + 12) * 36}
    assert costs.cost(soft)["params"] == 12 * (8 * 9 + 12) + 12 + 1
    assert costs.least(plain) == costs.cost(plain)
    assert costs.least(Point({})) == costs.dense


def test_of_an_embedding_the_params_decide() -> None:
    table = Layer("layer", "embedding", (4, 50), inputs=((7,),))
    assert costs_of(table, "error", "macs").saves("layer", Choice("svd", {"rank": 3}))
    assert not costs_of(table, "error", "macs").saves("layer", Choice("svd", {"rank": 4}))
