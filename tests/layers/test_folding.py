"""Weights that are computed: folded where their layer is factorized, and left alone everywhere else."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import rank_search as rs
from rank_search.layers import (
    DirectBases,
    Inventory,
    factorize,
    is_folded,
    layer_in,
    layers,
    load_plugin,
    opened_inventory,
    recompose,
    weight_of,
)
from rank_search.layers.costs import count_macs, count_params
from rank_search.layers.folding import folded
from rank_search.point import Choice, Point

SVD = {"svd": load_plugin("svd")}
X = torch.randn(16, 4, 5, 5, generator=torch.Generator().manual_seed(0))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def old(function: Callable[..., nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def make(module: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated
            return function(module)

    return make


def pruned(module: nn.Module) -> nn.Module:
    prune.l1_unstructured(module, "weight", 0.3)
    return prune.random_unstructured(module, "weight", 0.2)  # type: ignore[no-any-return,no-untyped-call]


def both(module: nn.Module) -> nn.Module:
    nn.utils.parametrize.register_parametrization(module, "bias", Doubled())
    return parametrizations.weight_norm(module)


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "two": both,
    "weight norm of old": old(nn.utils.weight_norm),
    "spectral norm of old": old(nn.utils.spectral_norm),
    "pruned": pruned,
}


def network(way: str) -> nn.Module:
    torch.manual_seed(0)
    conv, linear = (WAYS[way](each) for each in (nn.Conv2d(4, 6, 3), nn.Linear(54, 12)))
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear, nn.ReLU(), nn.Linear(12, 3))
    for _ in range(3):
        model.train()(X)  # norms that iterate come closer
    return model.eval()


def factorized(model: nn.Module, found: Inventory, **ranks: int) -> nn.Module:
    point = Point({name.strip("_"): Choice("svd", {"rank": rank}) for name, rank in ranks.items()})
    return factorize(model, point, found.layers, SVD, lambda name: DirectBases(weight_of(model, name)))


@pytest.mark.parametrize("way", WAYS)
def test_the_computed_weight_is_that_of_the_layer(way: str) -> None:
    model = network(way)
    expected, state = model(X), copy.deepcopy(model.state_dict())
    found = opened_inventory(model, X)
    assert list(found.layers) == ["0", "3", "5"]
    assert [is_folded(model, name) for name in found.layers] == [True, True, False]
    assert [row.kind for row in layers(model, X) if not row.skipped] == ["Conv2d (folded)", "Linear (folded)", "Linear"]
    torch.testing.assert_close(weight_of(model, "3"), model[3].weight.detach())  # type: ignore[union-attr,operator]
    made = factorized(model, found, _0=6, _3=12)
    torch.testing.assert_close(made(X), expected, rtol=1e-4, atol=1e-5)
    assert found.dense.params == sum(each.numel() for each in model.parameters())
    torch.testing.assert_close(model(X), expected)
    assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_that_stays_dense_is_computed_as_before(way: str) -> None:
    model = network(way)
    made = factorized(model, opened_inventory(model, X), _3=12)
    assert type(made[0]) is type(model[0])  # type: ignore[index]
    kept = {name for name in model.state_dict() if name.startswith("0.")}
    assert kept == {name for name in made.state_dict() if name.startswith("0.")}
    dense = factorized(model, opened_inventory(model, X))
    assert dense.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("way", WAYS)
def test_put_together_again_the_weight_is_a_parameter(way: str) -> None:
    model = network(way)
    found = opened_inventory(model, X)
    made = factorized(model, found, _3=4)
    again = recompose(made, model, found.layers)
    assert type(again[3]) is nn.Linear  # type: ignore[index]
    assert type(again[0]) is type(model[0])  # type: ignore[index]
    torch.testing.assert_close(again(X), made(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_counted_is_what_the_model_that_is_built_has(way: str) -> None:
    """With each layer dense or factorized: what computes a weight is there only with the dense layer."""
    model = network(way)
    table = rs.options(model, example=X[:1])
    assert table.dense == {"params": count_params(model), "macs": count_macs(model, [X[:1]])}
    svd = {name: Choice("svd", {"rank": 2}) for name in ("0", "3")}
    for names in ((), ("0",), ("3",), ("0", "3")):
        point = Point({name: svd[name] for name in names})
        built = rs.factorize(model, point, table)
        counted = table.total(table.describe(point))
        assert counted == {"params": count_params(built), "macs": count_macs(built, [X[:1]])}


def test_a_folded_module_shares_what_is_not_computed_and_keeps_what_the_user_has_set() -> None:
    linear = parametrizations.weight_norm(nn.Linear(5, 3))
    linear.mine = "kept"  # type: ignore[assignment]
    plain = folded(linear.train())
    assert type(plain) is nn.Linear
    assert plain.bias is linear.bias
    assert plain.mine == "kept"  # type: ignore[comparison-overlap]
    assert plain.training
    assert plain.weight.requires_grad
    assert not folded(linear.requires_grad_(False)).get_parameter("weight").requires_grad
    assert layer_in(nn.Sequential(linear), "0").get_parameter("weight").shape == (3, 5)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_pre_hook(lambda *_: None)
    return parametrizations.weight_norm(module)


def with_shared_norm() -> nn.Module:
    one, other = (parametrizations.weight_norm(nn.Linear(4, 4)) for _ in range(2))
    other.parametrizations.weight.original0 = one.parametrizations.weight.original0  # type: ignore[union-attr]
    return nn.Sequential(one, other)


@pytest.mark.parametrize("model", [nn.Sequential(hooked(nn.Linear(4, 4))), with_shared_norm()], ids=["hooks", "tied"])
def test_what_would_lose_something_is_not_folded(model: nn.Module) -> None:
    found = opened_inventory(model.eval(), torch.randn(1, 4))
    assert not found.layers
    assert all("is computed from other tensors" in each.reason for each in found.skipped if each.kind != "Parameter")


@pytest.mark.parametrize("tables", [{}, {"method": "overparameterized", "overparameterized": {"epochs": 1}}], ids=str)
def test_a_network_of_weight_norms_is_searched_and_exported(tables: dict[str, Any], tmp_path: Path) -> None:
    model = network("weight norm")
    batch = (X, model(X).argmax(1))
    found = rs.compress(
        model,
        train=[batch],
        selection=[batch],
        store=tmp_path / "s.sqlite",
        trials=4,
        training={"epochs": 1},
        search={"objectives": ["error", "params"]},
        **tables,
    )
    with rs.Store.open(found.store) as store:
        study = store.study("compressed")
        for row in store.trials(study):
            built = found.model(row.number)
            assert row.measurements["params"] == sum(each.numel() for each in built.parameters())
    least = min(found.front, key=lambda trial: trial.measurements["params"])
    small = found.model(least.number)
    assert least.measurements["params"] == sum(each.numel() for each in small.parameters()) < found.dense["params"]
    found.export(least.number, tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(rs.load(tmp_path / "out")(X[:1]), small(X[:1]))
