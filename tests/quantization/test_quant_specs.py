from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.coding.grid import transformed
from rank_search.layers import Layer, load_plugin
from rank_search.quantization import CodingSettings, Quantizer, component_modes
from rank_search.quantization.quant_specs import quantization_specs, to_frequencies
from rank_search.quantization.settings import PriorKind, StepsKind
from tests.quantization.test_entropy_models import plain_bits

CONVOLUTION = Layer.of(nn.Conv2d(6, 8, 3))


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"a.weight": (8, 6, 3, 3), "a.bias": (8,), "b.left": (6, 2), "c.weight": (4, 8, 3, 3), "d.weight": (5, 4)}
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def of(**coding: Any) -> dict[str, Any]:
    found = quantization_specs(tensors(), CodingSettings(**coding), {"b.left": 1})
    return {lattice.name: lattice for lattice in found}


def test_tensors_of_a_kind_share_a_group_and_stand_beside_each_other() -> None:
    found = of(grouping="kind")
    assert found["a.weight"].group == found["c.weight"].group == "weight 3x3"
    assert len({lattice.group for lattice in found.values()}) == 4
    assert [*found][:2] == ["a.weight", "c.weight"]


def test_grouping_by_tensor_gives_each_tensor_its_own_group() -> None:
    assert {lattice.group for lattice in of(grouping="tensor").values()} == {*tensors()}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("tensor", {"a.weight": (1, 1, 1, 1), "a.bias": (1,), "b.left": (1, 1)}),
        ("channel", {"a.weight": (8, 1, 1, 1), "a.bias": (1,), "b.left": (6, 1)}),
        ("component", {"a.weight": (1, 1, 1, 1), "a.bias": (1,), "b.left": (1, 2)}),
        ("frequency", {"a.weight": (1, 1, 3, 3), "a.bias": (1,), "b.left": (1, 1)}),
    ],
)
def test_step_shapes_of_each_kind(steps: StepsKind, expected: dict[str, tuple[int, ...]]) -> None:
    found = of(steps=steps)
    assert {name: found[name].steps for name in expected} == expected


@pytest.mark.parametrize(
    ("plugin", "values", "expected"),
    [
        ("svd", {"rank": 3}, {"left": 1, "right": 0}),
        ("svd-spatial", {"rank": 3}, {"down": 0, "across": 1}),
        ("tucker2", {"rank_out": 3, "rank_in": 2}, {"outer": 1, "core": 0, "inner": 1}),
        ("filter-basis", {"rank": 3}, {"filters": 0, "mixing": 2}),
        ("buckets", {"buckets": 30}, {}),  # fewer are another hash
    ],
)
def test_component_modes_are_where_a_higher_rank_would_add_some(
    plugin: str, values: dict[str, int], expected: dict[str, int]
) -> None:
    model = nn.Sequential(load_plugin(plugin)(CONVOLUTION, **values))
    assert component_modes(model) == {f"0.{name}": mode for name, mode in expected.items()}


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (2, 3, 5, 1), (1, 1, 2, 4)])
def test_the_fast_frequencies_are_those_of_the_file(shape: tuple[int, ...]) -> None:
    kernels = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(to_frequencies(kernels), transformed(kernels), atol=1e-7)
    assert torch.allclose(to_frequencies(to_frequencies(kernels), back=True), kernels, atol=1e-7)


# ---- the fused function, for every kind of steps and every prior ------------------------------------------


def plainly(quantizer: Quantizer, named: dict[str, Tensor], noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The same out of small differentiable pieces: rounding with gradients of its own, bits by autograd."""
    logarithms = torch.split(quantizer.log_step, [lattice.step_count for lattice in quantizer.lattices])
    noises = torch.split(noise, [lattice.count for lattice in quantizer.lattices])
    groups = list(dict.fromkeys(lattice.group for lattice in quantizer.lattices))
    rounded, bits = {}, torch.zeros((), dtype=torch.float64)
    for lattice, logarithm, each in zip(quantizer.lattices, logarithms, noises, strict=True):
        values = transformed(named[lattice.name]) if lattice.frequencies else named[lattice.name]
        step = logarithm.view(lattice.steps).exp()
        x = values / step
        whole = x + (x.round() - x).detach()
        scaled = whole * step
        rounded[lattice.name] = transformed(scaled, back=True) if lattice.frequencies else scaled
        numbers = (x + each.view(lattice.shape)).flatten().expand(len(groups), -1)
        bits = bits + plain_bits(quantizer.prior, numbers)[groups.index(lattice.group)].sum()
    return rounded, bits


@pytest.mark.parametrize("prior", ["laplace", "logistic", "density"])
@pytest.mark.parametrize("steps", ["tensor", "channel", "component", "frequency"])
@pytest.mark.parametrize("grouping", ["kind", "tensor"])
def test_quantizer_gradients_are_those_of_autograd_on_its_pieces(
    prior: PriorKind, steps: StepsKind, grouping: Any
) -> None:
    named = {name: tensor.requires_grad_() for name, tensor in tensors().items()}
    coding = CodingSettings(prior=prior, steps=steps, grouping=grouping)
    quantizer = Quantizer(named, 4, coding, {"b.left": 1}).double()
    with torch.no_grad():
        quantizer.log_step += 0.2 * torch.randn_like(quantizer.log_step)
    toward = {name: torch.randn_like(tensor) for name, tensor in named.items()}
    learned = [*named.values(), *quantizer.parameters()]

    def slopes(rounded: dict[str, Tensor], bits: Tensor) -> tuple[Tensor, ...]:
        total = 0.3 * bits + sum((rounded[name] * aim).sum() for name, aim in toward.items())
        return torch.autograd.grad(total, learned)

    torch.manual_seed(7)
    rounded, bits = quantizer(named)
    torch.manual_seed(7)
    expected, expected_bits = plainly(quantizer, named, quantizer._noise())
    for name in named:
        assert torch.allclose(rounded[name], expected[name], atol=1e-6)
    close = 3e-2 if prior == "density" else 1e-6
    assert float(bits.detach()) == pytest.approx(float(expected_bits.detach()), rel=close)
    for found, slope in zip(slopes(rounded, bits), slopes(expected, expected_bits), strict=True):
        assert torch.allclose(found, slope, rtol=close, atol=10 * close)


@pytest.mark.parametrize("steps", ["tensor", "channel", "component", "frequency"])
def test_tensors_rounded_in_place_lie_on_their_grids(steps: StepsKind) -> None:
    named = {name: tensor.float() for name, tensor in tensors().items()}
    quantizer = Quantizer(named, 4, CodingSettings(steps=steps), {"b.left": 1})
    before = {name: tensor.clone() for name, tensor in named.items()}
    grids = quantizer.round_(named)
    for name, grid in grids.items():
        whole = grid.round(named[name])
        assert torch.equal(grid.values(whole, torch.float32), named[name])
        assert torch.equal(whole, quantizer.exact(before)[name].round())
        assert grid.exponents.dim() == named[name].dim()
