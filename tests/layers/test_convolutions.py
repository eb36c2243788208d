"""Convolutions of every kind through the rooms that look at layers: what is said of them is what they compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from rank_search_plugins.svd import ChannelSVD
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import Axis, Layer, axes_of, count_params, fuse, load_plugin, recompose, take_inventory
from rank_search.layers.costs import count_macs
from rank_search.point import Choice, Point

FORMS = ("svd", "svd-spatial", "tucker2", "cp", "filter-basis")
SIDES = {1: (12,), 2: (9, 8), 3: (5, 6, 4)}


def inputs(layer: nn.Module, count: int = 8) -> Tensor:
    """Of a convolution: channels that depend on each other."""
    channels, dimensions = int(layer.in_channels), len(layer.kernel_size)  # type: ignore[arg-type]
    drawn = torch.randn(count, channels, *SIDES[dimensions], generator=torch.Generator().manual_seed(1))
    return (drawn + drawn.roll(1, 1)).relu()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


CONVOLUTIONS = {
    "1d": lambda: nn.Conv1d(6, 8, 3, padding=1),
    "1d-strided": lambda: nn.Conv1d(6, 8, 4, stride=2, dilation=2),
    "1d-pointwise": lambda: nn.Conv1d(8, 12, 1),
    "2d": lambda: nn.Conv2d(6, 8, 3, padding=1),
    "3d": lambda: nn.Conv3d(4, 6, 3, padding=1, bias=False),
    "3d-strided": lambda: nn.Conv3d(4, 6, (3, 2, 1), stride=(2, 1, 1)),
    "1d-grouped": lambda: nn.Conv1d(6, 9, 3, groups=3),
    "2d-grouped": lambda: nn.Conv2d(6, 8, 3, padding=1, stride=2, groups=2),
    "2d-grouped-pointwise": lambda: nn.Conv2d(8, 8, 1, groups=2, bias=False),
    "2d-depthwise": lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "2d-depthwise-doubled": lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "1d-transposed": lambda: nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1),
    "2d-transposed": lambda: nn.ConvTranspose2d(8, 4, 2, stride=2),
    "2d-transposed-overlapping": lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1, bias=False),
    "2d-transposed-depthwise": lambda: nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1, groups=6),
    "3d-transposed": lambda: nn.ConvTranspose3d(4, 3, 2, stride=2),
    "3d-depthwise": lambda: nn.Conv3d(4, 4, 3, padding=1, groups=4),
}


def applying(name: str) -> set[str]:
    if "pointwise" in name:
        return {"svd"}
    if "depthwise" in name:
        return {"svd-spatial"} | ({"svd"} if "doubled" in name else set())
    found = {"svd", "svd-spatial"} if "grouped" in name else set(FORMS)
    return found - ({"svd-spatial"} if name.startswith("1d") else set())


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_errors_in_the_table_are_those_of_the_outputs(name: str) -> None:
    """All positions of all batches are looked at, so that the moment says exactly what the outputs are off by."""
    layer = seeded(CONVOLUTIONS[name])
    x = inputs(layer)
    model = nn.Sequential(layer)
    table = rs.options(model, [x], example=x[:1], layers={"factorizations": FORMS})
    bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (x.dim() - 2))  # type: ignore[operator]
    tried = {}
    for option in list(table)[1:]:
        (choice,) = option.choices.values()
        made = rs.factorize(model, {"0": choice}, table)
        with torch.no_grad():
            wanted, found = model(x) - bias, made(x) - bias
        measured = float((wanted - found).double().square().sum() / wanted.double().square().sum())
        assert option.error == pytest.approx(measured, rel=1e-3, abs=1e-6)
        assert option.macs == count_macs(made, [x[:1]])
        assert option.params == count_params(made)
        tried[choice.factorization] = tried.get(choice.factorization, 0) + 1
    assert tried.keys() == applying(name)


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONS if "svd" in applying(name)])
def test_of_all_its_form_the_svd_is_closest_to_the_outputs(name: str) -> None:
    """The oracle: the outputs at all positions as one matrix, cut to its rank by a plain SVD."""
    layer = seeded(CONVOLUTIONS[name])
    x = inputs(layer)
    table = rs.options(nn.Sequential(layer), [x], example=x[:1], layers={"factorizations": ["svd"]})
    with torch.no_grad():
        bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (x.dim() - 2))  # type: ignore[operator]
        outputs = (layer(x) - bias).double().transpose(0, 1).flatten(1)
    squares = torch.stack([torch.linalg.svdvals(each).square() for each in outputs.chunk(int(layer.groups))])  # type: ignore[arg-type]
    for option in list(table)[1:]:
        rank = int(option.choices["0"].values["rank"])
        tail = float(squares[:, rank:].sum() / squares.sum())
        assert option.error == pytest.approx(tail, rel=1e-3, abs=1e-6)


NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def network(dimensions: int) -> nn.Module:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    up = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dimensions]
    norms = [NORMS[dimensions](8) for _ in range(4)]
    return nn.Sequential(
        *(conv(3, 8, 3, padding=1), norms[0], nn.ReLU(), conv(8, 8, 3, stride=2, bias=False), norms[1], nn.ReLU()),
        *(up(8, 8, 2, 2, bias=False), norms[2], nn.ReLU(), conv(8, 8, 3, padding=1, groups=4), norms[3]),
    )


def wander(model: nn.Module, x: Tensor) -> nn.Module:
    """Batch norms with statistics and scales of their own."""
    model.train()(3 * x + 1)
    for norm in model.modules():
        if isinstance(norm, tuple(NORMS.values())):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.uniform_(norm.bias)
    return model.eval()


def data(dimensions: int, channels: int = 3) -> Tensor:
    return torch.randn(8, channels, *SIDES[dimensions], generator=torch.Generator().manual_seed(2))


def choices(model: nn.Module, x: Tensor, form: str) -> Point:
    """The form with the middle of each of its axes, wherever it applies."""
    layers = take_inventory(model, x[:1]).layers
    axes = {name: load_plugin(form).axes(layer) for name, layer in layers.items()}
    return Point(
        {
            name: Choice(form, {axis.name: max(axis.low, (axis.high + 1) // 2) for axis in own})
            for name, own in axes.items()
            if own
        }
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_batch_norms_are_folded_into_the_forms(dimensions: int, form: str) -> None:
    x = data(dimensions)
    model = wander(seeded(lambda: network(dimensions)), x)
    table = rs.options(model, [x], example=x[:1], layers={"factorizations": [form] if form != "svd-spatial" else FORMS})
    made = rs.factorize(model, choices(model, x, form), table)
    fused = fuse(made, x)
    assert fused is not None
    assert not any("BatchNorm" in type(each).__name__ for each in fused.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(x), made(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_a_network_is_accounted_for_packed_and_put_together_again(dimensions: int) -> None:
    x = data(dimensions)
    model = wander(seeded(lambda: network(dimensions)), x)
    rows = rs.layers(model, x[:1])
    assert sum(row.params for row in rows) == count_params(model)
    assert [row.layer for row in rows if not row.skipped] == ["0", "3", "6", "9"]
    packed = rs.pack_model(model, [x], example=x[:1])
    assert [row.name for row in packed.layers] == ["0", "3", "6"]  # what has groups is rounded with the rest
    with torch.no_grad():
        wanted, found = model(x), packed.model(x)
        assert 0 < float((found - wanted).square().mean()) < 0.1 * float(wanted.square().mean())
    table = rs.options(model, [x], example=x[:1])
    made = rs.factorize(model, rs.allocate(table, params=0.6), table)
    again = recompose(made, model, take_inventory(model, x[:1]).layers)
    assert [type(each) for each in again] == [type(each) for each in model]
    with torch.no_grad():
        torch.testing.assert_close(again(x), made(x), rtol=1e-4, atol=1e-4)


def test_dimensions_that_a_stranger_does_not_know_are_not_asked_about() -> None:
    class OfImages(ChannelSVD):
        any_geometry = False

        @classmethod
        def axes(cls, layer: Layer) -> tuple[Axis, ...]:
            rows, columns = layer.kernel
            return super().axes(layer) if rows * columns else ()

    assert axes_of(OfImages, Layer.of(nn.Conv2d(2, 2, 3)))
    assert axes_of(OfImages, Layer.of(nn.Linear(2, 2)))
    assert axes_of(OfImages, Layer.of(nn.Conv1d(2, 2, 3))) == ()
    assert axes_of(OfImages, Layer.of(nn.Conv2d(2, 2, 3, groups=2))) == ()
    assert axes_of(OfImages, Layer.of(nn.Conv3d(2, 2, 3))) == ()
    assert axes_of(OfImages, Layer.of(nn.ConvTranspose2d(2, 2, 3))) == ()
