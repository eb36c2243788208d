"""Factorizing a model: same function at full rank, all checks first, the original untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rank_search.errors import LayerError
from rank_search.layers import (
    DirectBases,
    Factorization,
    count_params,
    factorize,
    layer_cost,
    load_plugin,
    skeleton,
    take_inventory,
)
from rank_search.layers.costs import count_macs
from rank_search.point import Choice, Point

EXAMPLE = torch.zeros(1, 3, 8, 8)
PLUGINS = {"svd": load_plugin("svd")}


def network() -> nn.Module:
    torch.manual_seed(0)
    shared = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(512, 6, bias=False)
    ).eval()


def svd(**ranks: int) -> Point:
    return Point({name.lstrip("_"): Choice("svd", {"rank": rank}) for name, rank in ranks.items()})


def made(point: Point) -> tuple[nn.Module, nn.Module]:
    model = network()
    layers = take_inventory(model, EXAMPLE).layers
    bases = lambda name: DirectBases(model.get_submodule(name).weight)  # noqa: E731
    return model, factorize(model, point, layers, PLUGINS, bases)


def test_at_full_rank_the_function_is_the_same() -> None:
    model, factorized = made(svd(_0=8, _1=8, _5=6))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(factorized(x), model(x), rtol=1e-4, atol=1e-5)


def test_every_alias_becomes_the_same_module() -> None:
    _, factorized = made(svd(_1=2))
    assert isinstance(factorized[1], Factorization)
    assert factorized[1] is factorized[3]
    assert isinstance(factorized[0], nn.Conv2d)


def test_the_original_is_untouched() -> None:
    model, _ = made(svd(_0=1, _1=1, _5=1))
    fresh = network()
    assert type(model[1]) is nn.Conv2d
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (svd(_9=1), "layer '9', which the model does not have"),
        (Point({"0": Choice("nope", {"rank": 1})}), "'nope'"),
        (Point({"0": Choice("svd", {})}), "given no values"),
        (svd(_0=9), r"is 9; it must lie in \[1, 8\]"),
        (svd(_0=0), r"is 0; it must lie in \[1, 8\]"),
    ],
)
def test_a_point_that_does_not_fit_is_refused_before_anything_is_built(point: Point, message: str) -> None:
    model = network()
    layers = take_inventory(model, EXAMPLE).layers

    def bases(name: str) -> DirectBases:
        raise AssertionError("nothing may be fitted")

    with pytest.raises(LayerError, match=message):
        factorize(model, point, layers, PLUGINS, bases)


def test_a_skeleton_takes_the_state_of_its_model() -> None:
    point = svd(_0=2, _1=3, _5=4)
    model, factorized = made(point)
    empty = skeleton(model, point, take_inventory(model, EXAMPLE).layers, PLUGINS)
    empty.load_state_dict(copy.deepcopy(factorized.state_dict()))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(empty(x), factorized(x))


def test_frozen_layers_stay_frozen_and_modes_are_kept() -> None:
    model = network().train()
    model[0].weight.requires_grad_(False)
    layers = take_inventory(model, EXAMPLE).layers
    bases = lambda name: DirectBases(model.get_submodule(name).weight)  # noqa: E731
    factorized = factorize(model, svd(_0=2, _1=2), layers, PLUGINS, bases)
    assert not any(parameter.requires_grad for parameter in factorized[0].parameters())
    assert all(parameter.requires_grad for parameter in factorized[1].parameters())
    assert factorized[0].training


def test_a_counted_cost_is_that_of_the_real_model() -> None:
    point = svd(_0=2, _1=3, _5=4)
    model, factorized = made(point)
    inventory = take_inventory(model, EXAMPLE)
    total = inventory.rest
    for name, choice in point.layers.items():
        total = total + layer_cost(inventory.layers[name], PLUGINS["svd"], choice)
    assert total.params == count_params(factorized)
    assert total.macs == count_macs(factorized, [EXAMPLE])


def test_channels_last_is_kept() -> None:
    model = network().to(memory_format=torch.channels_last)
    layers = take_inventory(model, EXAMPLE).layers
    bases = lambda name: DirectBases(model.get_submodule(name).weight)  # noqa: E731
    factorized = factorize(model, svd(_1=8), layers, PLUGINS, bases)
    right: Tensor = factorized[1].right
    assert right.is_contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(factorized(x), model(x), rtol=1e-4, atol=1e-5)
