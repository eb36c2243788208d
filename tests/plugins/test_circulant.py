"""Circulant blocks: the laws, that shifts of the inputs are shifts of the outputs, and how close they come."""

from __future__ import annotations

import math

import pytest
import torch
from rank_search_plugins import circulant
from rank_search_plugins.circulant import Circulant, EightsOfChannels, FoursOfChannels, PairsOfChannels
from torch import Tensor

from rank_search.layers import DirectBases, Layer, count_params, output_error
from rank_search.testing import FactorizationLaws

FORMS = [PairsOfChannels, FoursOfChannels, EightsOfChannels]
SHAPES = [(8, 16), (16, 8, 3), (8, 8, 3, 2)]


class TestLaws(FactorizationLaws):
    factorization = PairsOfChannels
    layers = (Layer("eight by four", "linear", (8, 4), inputs=((3, 4),)),)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int) -> Tensor:
    inputs = (normal(400, size, seed=1) @ normal(size, size, seed=2)).relu() * (normal(size, seed=3) / 2).exp()
    return inputs.T @ inputs / len(inputs)


def layer_of(shape: tuple[int, ...]) -> Layer:
    kind = "linear" if len(shape) == 2 else f"conv{len(shape) - 2}d"
    dimensions = max(1, len(shape) - 2)
    return Layer(
        "x", kind, shape, False, (1,) * dimensions, ((0, 0),) * dimensions, "zeros", (1,) * dimensions, (), (),
        torch.float64,
    )  # fmt: skip


def fitted(factorization: type[Circulant], weight: Tensor, moment: Tensor | None = None) -> Circulant:
    form = factorization(layer_of(tuple(weight.shape)), order=factorization.order)
    form.fit(weight, DirectBases(weight, moment))
    return form


def shifted(tensor: Tensor, dimension: int, order: int, by: int) -> Tensor:
    """Channel by channel, within blocks of `order`."""
    places = [place // order * order + (place - by) % order for place in range(tensor.shape[dimension])]
    return tensor.index_select(dimension, torch.tensor(places))


@pytest.mark.parametrize("factorization", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fit_to_the_weight_is_the_mean_over_the_shifts(
    factorization: type[Circulant], shape: tuple[int, ...]
) -> None:
    """The Reynolds operator, as it is written: shifted in the inputs, and back in the outputs."""
    weight, order = normal(*shape), factorization.order
    moved = [shifted(shifted(weight, 1, order, by), 0, order, by) for by in range(order)]
    expected = torch.stack(moved).mean(0)
    form = fitted(factorization, weight)
    torch.testing.assert_close(form.dense().detach(), expected)
    assert count_params(form) == math.prod(shape) / order
    found = factorization.figures(form.layer, weight)
    assert found == {"equivariance_gap": pytest.approx(float((weight - expected).norm() / weight.norm()))}


@pytest.mark.parametrize("factorization", FORMS)
def test_shifts_of_the_inputs_are_shifts_of_the_outputs(factorization: type[Circulant]) -> None:
    form, x, order = fitted(factorization, normal(16, 8, 3)), normal(2, 8, 9, seed=5), factorization.order
    for by in range(order):
        torch.testing.assert_close(form(shifted(x, 1, order, by)), shifted(form(x), 1, order, by))


@pytest.mark.parametrize("factorization", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fit_to_the_outputs_is_least_squares_over_its_numbers(
    factorization: type[Circulant], shape: tuple[int, ...]
) -> None:
    weight, size = normal(*shape), math.prod(shape[1:])
    C = moment(size)
    form = fitted(factorization, weight, C)
    R = torch.block_diag(*[torch.linalg.cholesky(C).T] * shape[0])
    columns = []
    for place in range(form.first.numel()):
        with torch.no_grad():
            unit = torch.eye(form.first.numel(), dtype=torch.float64)[place]
            one = factorization(form.layer, order=factorization.order)
            one.first.copy_(unit.view_as(one.first))
            columns.append(one.dense().flatten())
    U = torch.stack(columns, 1)
    best = (U @ torch.linalg.lstsq(R @ U, (R @ weight.flatten())[:, None]).solution).view_as(weight)
    errors = [output_error(weight, each, C) for each in (best, form.dense(), fitted(factorization, weight).dense())]
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)
    assert errors[0] < 0.95 * errors[2]


def test_many_inputs_are_fitted_to_the_weight_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, C = normal(8, 16), moment(16)
    assert not torch.equal(fitted(PairsOfChannels, weight, C).dense(), fitted(PairsOfChannels, weight).dense())
    monkeypatch.setattr(circulant, "SOLVED", 15)
    assert torch.equal(fitted(PairsOfChannels, weight, C).dense(), fitted(PairsOfChannels, weight).dense())


@pytest.mark.parametrize(
    ("layer", "applies"),
    [
        (Layer("x", "linear", (8, 12)), True),
        (Layer("x", "linear", (8, 10)), False),
        (Layer("x", "linear", (6, 12)), False),
        (Layer("x", "conv2d", (8, 4, 3, 3)), True),
        (Layer("x", "conv2d", (8, 4, 3, 3), groups=2), False),
        (Layer("x", "embedding", (8, 12)), False),
    ],
)
def test_it_applies_where_the_channels_can_be_cut(layer: Layer, applies: bool) -> None:
    axes = FoursOfChannels.axes(layer)
    assert [(axis.name, axis.low, axis.high) for axis in axes] == ([("order", 4, 4)] if applies else [])
