"""Costs of points against counting the real model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rank_search.layers import DirectBases, count_params, factorize, load_plugin, take_inventory
from rank_search.layers.costs import count_macs
from rank_search.options import CostModel
from rank_search.point import Choice, Point


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


def test_saving_means_both_fewer_params_and_fewer_macs(model: nn.Module) -> None:
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
