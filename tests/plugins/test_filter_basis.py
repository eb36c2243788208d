"""A basis of filters: the laws, planted filters, the cheaper of two orders, and how close it comes to the outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rank_search_plugins import filter_basis
from rank_search_plugins.filter_basis import FilterBasis, by_place, mixes_first
from torch import Tensor, nn

from rank_search.layers import DirectBases, Layer, channels_last, output_error
from rank_search.layers.costs import count_macs
from rank_search.testing import FactorizationLaws


class TestLaws(FactorizationLaws):
    factorization = FilterBasis
    equality = True


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int) -> Tensor:
    """Of inputs that depend on each other and differ in size: far from a product of channels and places."""
    inputs = (normal(400, size, seed=1) @ normal(size, size, seed=2)).relu() * (normal(size, seed=3) / 2).exp()
    return inputs.T @ inputs / len(inputs)


def fitted(layer: Layer, rank: int, weight: Tensor, bases: DirectBases | None = None) -> FilterBasis:
    form = FilterBasis(layer, rank=rank)
    form.fit(weight, bases or DirectBases(weight))
    return form


def of(module: nn.Module, *inputs: int) -> Layer:
    return replace(Layer.of(module), inputs=(inputs,))


@pytest.mark.parametrize(
    "layer",
    [
        Layer("x", "linear", (5, 4)),
        Layer("x", "conv2d", (5, 4, 1, 1), stride=(2, 2)),
        Layer("x", "conv2d", (6, 1, 3, 3), groups=6),
        Layer("x", "conv1d", (6, 3, 5), groups=2),
    ],
)
def test_it_does_not_apply_where_there_is_little_to_share(layer: Layer) -> None:
    assert FilterBasis.axes(layer) == ()


@pytest.mark.parametrize(
    ("shape", "high"), [((8, 6, 3, 3), 9), ((8, 6, 5), 5), ((1, 1, 3, 3), 1), ((4, 4, 3, 3, 3), 16)]
)
def test_there_are_no_more_filters_than_places_of_the_kernel_or_channels(shape: tuple[int, ...], high: int) -> None:
    (axis,) = FilterBasis.axes(Layer("x", f"conv{len(shape) - 2}d", shape))
    assert (axis.low, axis.high, axis.unfoldings) == (1, high, (by_place,))


def test_the_unfolding_has_a_row_for_each_place() -> None:
    weight = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    assert by_place(weight).shape == (4 * 5, 2 * 3)
    assert by_place(weight)[2 * 5 + 3, 1 * 3 + 2] == weight[1, 2, 2, 3]


@pytest.mark.parametrize("known", ["nothing", "inputs"])
def test_planted_filters_are_found(known: str) -> None:
    filters, mixing = normal(2, 9), normal(8, 6, 2, seed=5)
    weight = (mixing @ filters).view(8, 6, 3, 3)
    bases = DirectBases(weight, None if known == "nothing" else moment(54))
    form = fitted(Layer("x", "conv2d", (8, 6, 3, 3), dtype=torch.float64), 2, weight, bases)
    torch.testing.assert_close(form.dense(), weight, rtol=1e-4, atol=1e-4)
    (frame,) = form.frames()
    torch.testing.assert_close(frame.T @ frame, torch.eye(2, dtype=torch.float64))


CONVOLUTIONS = {
    "narrowing": of(nn.Conv2d(12, 4, 3, padding=1), 1, 12, 9, 8),
    "widening": of(nn.Conv2d(4, 12, 3, padding=1), 1, 4, 9, 8),
    "narrowing, strided": of(nn.Conv2d(12, 8, 3, 2, padding=1), 1, 12, 8, 8),
    "one dimension": of(nn.Conv1d(12, 4, 5, padding=2), 1, 12, 20),
    "three dimensions": of(nn.Conv3d(3, 8, 3, padding=1), 1, 3, 5, 6, 4),
    "transposed, widening": of(nn.ConvTranspose2d(8, 12, 4, 2, padding=1), 1, 8, 6, 5),
    "transposed, narrowing": of(nn.ConvTranspose2d(12, 4, 4, 2, padding=1), 1, 12, 6, 5),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_of_the_two_orders_the_one_with_fewer_macs_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are run and counted."""
    layer = CONVOLUTIONS[name]
    form, x = FilterBasis(layer, rank=2), torch.zeros(layer.inputs[0])
    taken, first = count_macs(form, [x]), mixes_first(layer)
    monkeypatch.setattr(filter_basis, "mixes_first", lambda layer: not first)
    assert taken < count_macs(form, [x])


def test_both_orders_are_taken_somewhere() -> None:
    assert {name for name, layer in CONVOLUTIONS.items() if mixes_first(layer)} == {
        "narrowing",
        "one dimension",
        "transposed, widening",
        "transposed, narrowing",
    }


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_with_all_filters_it_is_the_layer_in_evaluation_and_either_memory_format(name: str) -> None:
    layer = CONVOLUTIONS[name]
    weight, x, bias = normal(*layer.shape), normal(*layer.inputs[0], seed=4), normal(layer.out_features, seed=5)
    (axis,) = FilterBasis.axes(layer)
    form = fitted(replace(layer, dtype=torch.float64), int(axis.high), weight).eval()
    form.load_state_dict(form.state_dict() | {"bias": bias})
    wanted = layer.operate(x, weight, bias)
    torch.testing.assert_close(form(x), wanted)
    for parameter in form.parameters():
        parameter.data = channels_last(parameter.data)
    torch.testing.assert_close(form(channels_last(x)), wanted)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_it_is_hardly_farther_from_the_outputs_than_gradient_descent_gets(rank: int) -> None:
    """The oracle: both factors moved together, from the fit and from two random starts."""
    shape = (8, 6, 3, 3)
    layer, weight, C = Layer("x", "conv2d", shape, dtype=torch.float64), normal(*shape), moment(54)
    form = fitted(layer, rank, weight, DirectBases(weight, C))
    total = output_error(weight, torch.zeros_like(weight), C)
    found = output_error(weight, form.dense(), C) / total
    starts = [(form.filters.detach().view(rank, 9), form.mixing.detach().view(48, rank))]
    starts += [(normal(rank, 9, seed=seed), normal(48, rank, seed=seed + 9)) for seed in (1, 2)]
    best = min(descended(weight, C, *start) / total for start in starts)
    assert found <= 1.1 * best + 1e-6


def descended(weight: Tensor, C: Tensor, filters: Tensor, mixing: Tensor) -> float:
    factors = [filters.clone().requires_grad_(), mixing.clone().requires_grad_()]
    optimizer = torch.optim.LBFGS(factors, max_iter=300, history_size=30, line_search_fn="strong_wolfe")

    def error() -> Tensor:
        optimizer.zero_grad()
        off = weight.flatten(1) - (factors[1] @ factors[0]).view(weight.shape).flatten(1)
        loss = ((off @ C) * off).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(error)  # type: ignore[arg-type]
    return float(error().detach())


def test_each_rank_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(8, 6, 3, 3)
    layer, bases = Layer("x", "conv2d", (8, 6, 3, 3), dtype=torch.float64), DirectBases(weight, moment(54))
    first = fitted(layer, 3, weight, bases)
    monkeypatch.setattr(filter_basis, "closest_to_outputs", None)
    assert torch.equal(fitted(layer, 3, weight, bases).dense(), first.dense())
    with pytest.raises(TypeError):
        fitted(layer, 4, weight, bases)


def test_filters_of_large_kernels_are_not_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(3, 2, 7, 7)
    layer, bases = Layer("x", "conv2d", (3, 2, 7, 7), dtype=torch.float64), DirectBases(weight, moment(98))
    plain = output_error(weight, fitted(layer, 4, weight).dense(), bases.moment)
    monkeypatch.setattr(filter_basis, "SOLVED", 4 * 49 - 1)
    monkeypatch.setattr(filter_basis, "_best_filters", None)
    assert output_error(weight, fitted(layer, 4, weight, bases).dense(), bases.moment) < plain
