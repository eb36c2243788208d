"""What a model is made of: a row for each layer, factorized or not, and for each part that is skipped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rank_search.layers import (
    Axis,
    Bases,
    DirectBases,
    Factorization,
    Layer,
    factorize,
    layers,
    load_plugin,
    take_inventory,
)
from rank_search.layers.costs import count_macs, count_params
from rank_search.point import Choice, Point

X = torch.zeros(1, 3, 8, 8)


class Scaled(nn.Module):
    """A block with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(16))
        self.conv = nn.Conv2d(12, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gain[:, None, None]


class Nested(Factorization):
    """A factorization that is made of modules."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("rank", 1, min(layer.shape[:2])),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.inner = nn.Linear(layer.shape[1], rank, bias=False)
        self.outer = nn.Linear(rank, layer.shape[0], bias=False)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        U, s, V = torch.linalg.svd(weight, full_matrices=False)
        rank = self.inner.out_features
        self.outer.weight.copy_(U[:, :rank] * s[:rank])
        self.inner.weight.copy_(V[:rank])

    def dense(self) -> Tensor:
        return self.outer.weight @ self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.outer(self.inner(x))
        return mixed if self.bias is None else mixed + self.bias


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), Scaled(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


def small(model: nn.Module, point: Point) -> nn.Module:
    plugins = {"svd": load_plugin("svd"), "nested": Nested}
    inventory = take_inventory(model, X)
    return factorize(
        model, point, inventory.layers, plugins, lambda name: DirectBases(model.get_submodule(name).weight)
    )


def test_a_dense_model_has_a_row_for_each_part_in_its_order() -> None:
    model = network()
    found = layers(model, X)
    assert [row.layer for row in found] == ["0", "1", "2.gain", "2.conv", "5"]
    assert [row.kind for row in found] == ["Conv2d", "BatchNorm2d", "Parameter", "Conv2d", "Linear"]
    assert [bool(row.skipped) for row in found] == [False, True, True, False, False]
    assert sum(row.params for row in found) == found.total.params == count_params(model)
    assert sum(row.macs for row in found) == found.total.macs == count_macs(model, [X])


def test_a_factorized_layer_is_one_row_with_its_ranks() -> None:
    model = network()
    made = small(model, Point({"2.conv": Choice("svd", {"rank": 3}), "5": Choice("nested", {"rank": 2})}))
    found = layers(made, X)
    assert [row.layer for row in found] == ["0", "1", "2.gain", "2.conv", "5"]
    assert found["2.conv"].kind == "svd"
    assert found["2.conv"].values == {"rank": 3}
    assert found["2.conv"].shape == (16, 12, 3, 3)
    assert found["5"].kind == "Nested"
    assert not found["2.conv"].skipped
    assert found["5"].params == 2 * (16 + 10) + 10
    assert found["5"].macs == 2 * (16 + 10)
    assert sum(row.params for row in found) == found.total.params == count_params(made)
    assert sum(row.macs for row in found) == found.total.macs == count_macs(made, [X])


def test_the_model_and_its_modes_stay_as_they_are() -> None:
    model = network().train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    layers(model, X)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_rows_are_shown_and_found_by_name() -> None:
    found = layers(network(), X)
    lines = repr(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert lines[0] == f"5 layers, {found.total.params:,} parameters, {found.total.macs:,} MACs"
    assert "1,744" in repr(found)
    assert found._repr_html_().count("<tr>") == 1 + len(found)
    assert found.to_pandas()["params"].sum() == found.total.params
    with pytest.raises(KeyError):
        found["nowhere"]
