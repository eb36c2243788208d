"""Structured multi-hashing: the laws, cells by brute force, planted matrices, the best scale, and published budgets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from rank_search_plugins.hashing import Hashed, Hashing, KroneckerHashing, tiled
from torch import Tensor, nn

from rank_search.layers import (
    DirectBases,
    Layer,
    count_params,
    fit_together,
    layer_cost,
    output_error,
    share,
    with_pools,
)
from rank_search.point import Choice
from rank_search.testing import FactorizationLaws

SHAPES = ((5, 3, 3, 3), (7, 11), (4, 6, 2, 2))
COUNT = sum(map(math.prod, SHAPES))  # 308: 18 × 18 cells, or 25 × 25


class TestProductLaws(FactorizationLaws):
    factorization = Hashing


class TestKroneckerLaws(FactorizationLaws):
    factorization = KroneckerHashing


def pool(*shapes: tuple[int, ...], plugin: type[Hashed] = Hashing) -> list[Layer]:
    kinds = {2: "linear", 4: "conv2d"}
    layers = {str(place): Layer(str(place), kinds[len(shape)], shape, False) for place, shape in enumerate(shapes)}
    return list(with_pools(layers, {"0": tuple(layers)}, {"": plugin}).values())


def formed(plugin: type[Hashed], layers: list[Layer], budget: int) -> list[Hashed]:
    forms = [plugin(layer, **{plugin.budget: budget}) for layer in layers]
    share(forms)
    return forms


def drawn(forms: list[Hashed], seed: int = 0) -> list[Tensor]:
    """The forms with random numbers in them, and the weights that they stand for."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in nn.ModuleList(forms).parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return [form.dense() for form in forms]


def whole(form: Hashed) -> Tensor:
    """M̂, cell by cell."""
    if isinstance(form, Hashing):
        return form.by_row @ form.by_column
    assert isinstance(form, KroneckerHashing)
    return sum((torch.kron(a, b) for a, b in zip(form.coarse, form.fine, strict=True)), torch.zeros(()))


@pytest.mark.parametrize("plugin", [Hashing, KroneckerHashing])
def test_weights_are_consecutive_cells_each_times_its_scale(plugin: type[Hashed]) -> None:
    forms = formed(plugin, pool(*SHAPES), 3)
    weights = drawn(forms)
    cells = whole(forms[0]).flatten()
    assert len(cells) == {Hashing: 18**2, KroneckerHashing: 25**2}[plugin]
    for form, weight in zip(forms, weights, strict=True):
        size = math.prod(form.layer.shape)
        torch.testing.assert_close(weight.flatten(), form.scale * cells[:size])
        cells = cells[size:]


@pytest.mark.parametrize("plugin", [Hashing, KroneckerHashing])
def test_what_was_made_by_it_is_found_again(plugin: type[Hashed]) -> None:
    """One weight that fills the square, and so no cell is left over and all have one scale."""
    layers = pool((16, 16))
    weights = drawn(formed(plugin, layers, 3))
    (again,) = formed(plugin, layers, 3)
    fit_together([again], weights, [DirectBases(*weights)])
    torch.testing.assert_close(again.dense(), weights[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("plugin", [Hashing, KroneckerHashing])
@pytest.mark.parametrize("seen", [False, True])
def test_the_scale_of_each_layer_is_the_best_there_is(plugin: type[Hashed], seen: bool) -> None:
    """For its outputs, by trying others; of weights that differ a thousandfold in size, no layer is lost."""
    layers = pool(*SHAPES)
    generator = torch.Generator().manual_seed(3)
    weights = [10.0**place * torch.randn(layer.shape, generator=generator) for place, layer in enumerate(layers)]
    moments: list[Tensor | None] = [None] * 3
    if seen:
        inputs = [torch.randn(90, weight[0].numel(), generator=generator).relu() for weight in weights]
        moments = [each.T @ each / 90 for each in inputs]
    forms = formed(plugin, layers, 2)
    fit_together(forms, weights, [DirectBases(*each) for each in zip(weights, moments, strict=True)])
    for form, weight, moment in zip(forms, weights, moments, strict=True):
        made = form.dense()
        best = output_error(weight, made, moment)
        assert best < output_error(weight, torch.zeros_like(weight), moment)
        for other in (0.9, 0.97, 1.03, 1.1):
            assert output_error(weight, other * made, moment) > best


def test_the_fit_is_the_closest_matrix_of_its_rank() -> None:
    layers = pool((12, 6), (9, 8))  # 144 numbers: 12 × 12, none left over
    weights = [
        torch.randn(layer.shape, generator=torch.Generator().manual_seed(place)) for place, layer in enumerate(layers)
    ]
    forms = formed(Hashing, layers, 4)
    fit_together(forms, weights, [DirectBases(weight) for weight in weights])
    square = torch.cat([(weight / weight.square().mean().sqrt()).flatten() for weight in weights]).view(12, 12)
    left, values, right = torch.linalg.svd(square)
    torch.testing.assert_close(whole(forms[0]), left[:, :4] * values[:4] @ right[:4], atol=1e-4, rtol=1e-3)
    assert isinstance(forms[0], Hashing)
    norms = forms[0].by_row.norm(dim=0), forms[0].by_column.norm(dim=1)
    torch.testing.assert_close(*norms)


def test_a_budget_is_counted_once_for_the_pool_and_ends_where_it_saves_nothing() -> None:
    for plugin, side in ((Hashing, 18), (KroneckerHashing, 25)):
        layers = pool(*SHAPES, plugin=plugin)
        ((axis,),) = {plugin.axes(layer) for layer in layers}
        assert (axis.name, axis.low, axis.unfoldings) == (plugin.budget, 1, ())

        def params(budget: int, plugin: type[Hashed] = plugin, layers: list[Layer] = layers) -> int:
            return sum(layer_cost(each, plugin, Choice("", {plugin.budget: budget})).params for each in layers)

        assert params(1) == 2 * side + 3
        assert params(int(axis.high)) < COUNT <= params(int(axis.high) + 1)
        built = nn.ModuleList(formed(plugin, layers, 3))
        assert count_params(built) == params(3) == 6 * side + 3


def test_macs_are_the_dense_layers() -> None:
    layer = replace(Layer.of(nn.Conv2d(6, 8, 3, padding=1)), inputs=((1, 6, 5, 5),))
    dense = layer_cost(layer, None, Choice())
    for plugin in (Hashing, KroneckerHashing):
        assert layer_cost(layer, plugin, Choice("", {plugin.budget: 2})).macs == dense.macs == 25 * 8 * 54


def test_a_published_budget() -> None:
    """ResNet-32 for CIFAR-10: 464,154 numbers, a tenth of them as trainable ones."""
    layer = Layer("", "linear", (2, 232077))
    assert Hashing.side(464154) == 682
    assert layer_cost(replace(layer, bias=False), Hashing, Choice("", {"hash_pairs": 34})).params == 46_376 + 1


def test_there_is_no_budget_for_what_is_too_small_or_of_two_types() -> None:
    assert Hashing.axes(Layer("", "linear", (2, 3))) == ()
    layers = {"0": Layer("0", "linear", (9, 9)), "1": Layer("1", "linear", (9, 9), dtype=torch.float64)}
    assert [Hashing.axes(each) for each in with_pools(layers, {"0": ("0", "1")}, {"": Hashing}).values()] == [(), ()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_numbers_of_16_bits_are_of_unit_size_too(dtype: torch.dtype) -> None:
    weight = (1e-4 * torch.ones(4, 5)).to(dtype)
    torch.testing.assert_close(tiled([weight, 3 * weight], 7).flatten()[:40].float(), torch.ones(40))
