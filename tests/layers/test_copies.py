"""Copies of models: graphs are left behind, attributes stay readable, and what cannot be copied is said."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from rank_search.errors import TaskError
from rank_search.layers import DirectBases, copied, factorize, load_plugin, recompose, take_inventory
from rank_search.layers.copies import tensors_in
from rank_search.point import Choice, Point

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
PLUGINS = {"svd": load_plugin("svd")}


class Keeps(nn.Module):
    """Keeps tensors with their graph where `place` puts them."""

    def __init__(self, place: Any) -> None:
        super().__init__()
        self.a, self.place, self.kept = nn.Linear(6, 8), place, None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.a(x)
        self.kept = self.place(h.square().mean())
        return h


class Box:
    def __init__(self, value: Tensor) -> None:
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value


@pytest.mark.parametrize(
    "place",
    [lambda t: t, lambda t: [t], lambda t: {"loss": (t,)}, Box, Slotted, lambda t: [Box(t)], lambda t: {"a": {t}}],
)
def test_a_tensor_with_its_graph_is_copied_as_numbers(place: Any) -> None:
    model = Keeps(place)
    model(X).sum().backward()
    made = copied(model)
    (found,) = [each for each in tensors_in(made) if not isinstance(each, nn.Parameter)]
    (kept,) = [each for each in tensors_in(model) if not isinstance(each, nn.Parameter)]
    assert torch.equal(found, kept)
    assert found.is_leaf
    assert not kept.is_leaf
    assert found is not kept


@pytest.mark.parametrize("computed", ["pruned", "old weight norm"])
def test_a_weight_that_is_computed_before_each_forward(computed: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    if computed == "pruned":
        prune.l1_unstructured(model[0], "weight", 0.3)  # type: ignore[no-untyped-call]
    else:
        with pytest.warns(FutureWarning, match="weight_norm"):
            nn.utils.weight_norm(model[0])
    model(X)
    assert torch.equal(copied(model)(X), model(X))


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = nn.Linear(2, 2)
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(TaskError, match="cannot be copied"):
        copied(model)


def factorized(model: nn.Module, example: Tensor, name: str) -> nn.Module:
    layers = take_inventory(model, example).layers
    point = Point({name: Choice("svd", {"rank": 1})})
    return factorize(model, point, layers, PLUGINS, lambda name: DirectBases(model.get_submodule(name).weight))  # type: ignore[arg-type]


def test_attributes_of_a_linear_layer_stay_readable() -> None:
    model = nn.Sequential(nn.Linear(6, 8, bias=False)).eval()
    made = factorized(model, X, "0")[0]  # type: ignore[index]
    assert (made.in_features, made.out_features, made.bias) == (6, 8, None)
    assert made.weight.shape == (8, 6)


def test_attributes_of_a_convolution_stay_readable() -> None:
    dense = nn.Conv2d(3, 8, (3, 5), stride=(1, 2), padding="valid", dilation=(2, 1), padding_mode="reflect")
    model = nn.Sequential(dense).eval()
    made = factorized(model, torch.zeros(1, 3, 9, 9), "0")[0]  # type: ignore[index]
    for name in nn.Conv2d.__constants__:
        assert getattr(made, name) == getattr(dense, name)
    assert made.kernel_size == (3, 5)
    assert (made.transposed, made.output_padding, made.groups) == (False, (0, 0), 1)


def test_what_a_user_set_on_a_layer_stays_and_belongs_to_the_copy() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2)).eval()
    model[0].f, model[0].after = -1, [model[1]]  # type: ignore[assignment]
    made = factorized(model, X, "0")
    assert made[0].f == -1  # type: ignore[index]
    assert made[0].after[0] is made[1]  # type: ignore[index]
    assert made[1] is not model[1]  # type: ignore[index]
    ordinary = recompose(made, model, take_inventory(model, X).layers)
    assert type(ordinary[0]) is nn.Linear  # type: ignore[index]
    assert ordinary[0].f == -1  # type: ignore[index]


def test_a_factor_of_that_name_is_not_overwritten() -> None:
    model = nn.Sequential(nn.Linear(6, 8)).eval()
    model[0].left = "mine"  # type: ignore[assignment]
    made = factorized(model, X, "0")[0]  # type: ignore[index]
    assert isinstance(made.left, nn.Parameter)
