"""A fused model is the model: exactly, for every factorization, or it is not used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rank_search.layers import (
    Axis,
    Bases,
    DirectBases,
    Factorization,
    Layer,
    deployed,
    factorize,
    fuse,
    load_plugin,
    take_inventory,
)
from rank_search.layers.fused import CLOSE, distance
from rank_search.point import Choice, Point
from tests.plugins.stranger import write_package

BUILT_IN = ["svd", "svd-spatial", "tucker2", "cp", "filter-basis"]


class Block(nn.Module):
    """A residual block with a shortcut that has no parameters (option A)."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.norm2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide)
        self.stride, self.more = stride, wide - narrow

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(inner + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)))


def lived(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics and scales as training leaves them: of both signs, one of them zero."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            mean, variance = cast(Tensor, module.running_mean), cast(Tensor, module.running_var)
            mean.normal_(generator=generator)
            variance.uniform_(0.1, 3, generator=generator)
            if module.affine:
                module.weight.data.normal_(0.5, 1, generator=generator)
                module.weight.data[0] = 0
                module.bias.data.normal_(generator=generator)
    return model.eval()


def chosen(layer: Layer, plugin: type[Factorization], name: str) -> Choice:
    axes = plugin.axes(layer)
    if not axes:
        return Choice()
    return Choice(name, {axis.name: max(int(axis.low), int(axis.high) // 2) for axis in axes})


def with_factorization(model: nn.Module, example: Tensor, name: str, plugin: type[Factorization]) -> nn.Module:
    layers = take_inventory(model, example).layers
    point = Point({key: chosen(layer, plugin, name) for key, layer in layers.items()})
    assert any(not choice.is_dense for choice in point.layers.values())

    def bases(key: str) -> Bases:
        return DirectBases(model.get_submodule(key).get_parameter("weight").detach())

    return factorize(model, point, layers, {name: plugin}, bases)


def norms(model: nn.Module | None) -> int:
    assert isinstance(model, fx.GraphModule)
    return sum(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())


def same(model: nn.Module, fused: nn.Module | None, *inputs: Tensor) -> bool:
    assert fused is not None
    with torch.no_grad():
        return distance(model(*inputs), fused(*inputs)) <= CLOSE


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def residual() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)]
    return lived(nn.Sequential(*stem, Block(8, 8, 1), Block(8, 12, 2), *head))


def convolution(bias: bool) -> nn.Module:
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=bias)
    return lived(nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)))


def linear(bias: bool) -> nn.Module:
    return lived(nn.Sequential(nn.Linear(12, 12, bias=bias), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [*BUILT_IN, "dense"])
def test_a_convolution_takes_its_norm_in(name: str, bias: bool) -> None:
    example, model = torch.randn(1, 6, 8, 8), convolution(bias)
    model = model if name == "dense" else with_factorization(model, example, name, load_plugin(name))
    fused = fuse(model, example)
    assert norms(fused) == 0
    assert same(model, fused, torch.randn(7, 6, 8, 8))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["svd", "dense"])
def test_a_linear_layer_takes_its_norm_in(name: str, bias: bool) -> None:
    example, model = torch.randn(1, 12), linear(bias)
    model = model if name == "dense" else with_factorization(model, example, name, load_plugin(name))
    fused = fuse(model, example)
    assert norms(fused) == 0
    assert same(model, fused, torch.randn(9, 12))


@pytest.mark.parametrize("name", [*BUILT_IN, "dense"])
def test_a_residual_network_is_fused_whole(name: str) -> None:
    example, model = torch.randn(1, 3, 8, 8), residual()
    model = model if name == "dense" else with_factorization(model, example, name, load_plugin(name))
    one, other = deployed(model, residual(), example=example)
    assert norms(one) == norms(other) == 0
    assert same(model, one, torch.randn(4, 3, 8, 8))


def test_kernels_of_a_deployed_model_lie_channels_last() -> None:
    (model,) = deployed(residual(), example=torch.randn(1, 3, 8, 8))
    kernels = [parameter for parameter in model.parameters() if parameter.dim() == 4]
    assert len(kernels) == 5
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_a_norm_without_scale_and_shift_is_folded_too() -> None:
    model = lived(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=False)))
    factorized = with_factorization(model, torch.randn(1, 2, 4, 4), "svd", load_plugin("svd"))
    for each in (model, factorized):
        fused = fuse(each, torch.randn(1, 2, 4, 4))
        assert norms(fused) == 0
        assert same(each, fused, torch.randn(3, 2, 4, 4))


# ---- strangers -------------------------------------------------------------------------------------------


def test_a_strangers_factorization_takes_its_norm_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write_package(tmp_path) / "src")
    plugin = load_plugin(f"{tmp_path / 'src' / 'rank_search_stranger' / '__init__.py'}:InputSVD")
    example, model = torch.randn(1, 3, 8, 8), residual()
    factorized = with_factorization(model, example, "stranger", plugin)
    fused = fuse(factorized, example)
    assert norms(fused) == 0
    assert same(factorized, fused, torch.randn(4, 3, 8, 8))
    sys.modules.pop("rank_search_stranger", None)


class Sum(Factorization):
    """A low-rank matrix plus a diagonal: both terms carry the rows."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("rank", 1, layer.in_features),) if layer.shape[0] == layer.shape[1] else ()

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.left, self.right = self.factor(layer.out_features, rank), self.factor(rank, layer.in_features)
        self.diagonal = self.factor(layer.out_features)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        for factor in (self.left, self.right, self.diagonal):
            factor.normal_()

    def dense(self) -> Tensor:
        return self.left @ self.right + self.diagonal.diag()


class Bounded(Sum):
    """No factor carries the rows: the weight is not linear in any."""

    def dense(self) -> Tensor:
        return torch.tanh(super().dense())


@pytest.mark.parametrize(("plugin", "left"), [(Sum, 0), (Bounded, 1)])
def test_a_norm_that_no_factor_takes_in_stays(plugin: type[Factorization], left: int) -> None:
    example = torch.randn(1, 12)
    model = with_factorization(linear(bias=False), example, "other", plugin)
    fused = fuse(model, example)
    assert norms(fused) == left
    assert same(model, fused, torch.randn(9, 12))


class Forgetful(Sum):
    """Breaks the first law: adds no bias."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dense())


def test_an_unlawful_factorization_leaves_the_model_as_it_is() -> None:
    example = torch.randn(1, 12)
    assert fuse(with_factorization(linear(bias=False), example, "other", Forgetful), example) is None


# ---- what is not folded ----------------------------------------------------------------------------------


class Twice(nn.Module):
    """Calls one convolution twice, and hands another one's output round its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.other, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.alias = self.conv

    def forward(self, x: Tensor) -> Tensor:
        y = self.alias(self.norm(self.conv(x)))
        z = self.other(y)
        return cast(Tensor, z + self.second(z))


def test_a_norm_stays_where_folding_would_change_something_else() -> None:
    model = lived(Twice())
    fused = fuse(model, torch.randn(1, 3, 4, 4))
    assert norms(fused) == 2
    assert same(model, fused, torch.randn(5, 3, 4, 4))


class Branching(nn.Module):
    """Looks at numbers before it decides, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return cast(Tensor, y if float(y.sum()) > 0 else -y)


def test_a_model_that_cannot_be_traced_is_run_as_it_is() -> None:
    example, model = torch.randn(1, 3, 4, 4), lived(Branching())
    assert fuse(model, example) is None
    (plain,) = deployed(model.train(), example=example)
    assert not plain.training
    assert isinstance(plain, Branching)
    assert same(model.eval(), plain, torch.randn(2, 3, 4, 4))


def test_of_two_models_both_are_fused_or_none() -> None:
    example = torch.randn(1, 3, 4, 4)
    fusible = lived(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    one, other = deployed(fusible, lived(Branching()), example=example)
    assert isinstance(one, nn.Sequential)
    assert isinstance(other, Branching)


class Tied(nn.Module):
    """Reads the weight of a layer that is followed by a norm a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(cast(Tensor, self.norm(self.first(x))), self.first.weight)


def test_a_fold_that_changes_the_outputs_is_taken_back() -> None:
    assert fuse(lived(Tied()), torch.randn(1, 4)) is None


@pytest.mark.parametrize(
    ("expected", "found", "far"),
    [
        ([1.0, -4.0], [1.0, -4.2], 0.05),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0], [1.0, 1.0], torch.inf),
        ([1.0], [torch.nan], torch.inf),
        ([], [], 0.0),
    ],
)
def test_distance_is_relative_to_the_largest_number(expected: list[float], found: list[float], far: float) -> None:
    assert distance(torch.tensor(expected), torch.tensor(found)) == pytest.approx(far)
