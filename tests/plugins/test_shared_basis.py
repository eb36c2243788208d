"""A basis of rows that layers share: the laws, planted bases, one SVD of all, outputs, and what does not apply."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rank_search_plugins.shared_basis import SharedBasis
from rank_search_plugins.svd import ChannelSVD
from torch import Tensor, nn

from rank_search.layers import (
    DirectBases,
    Layer,
    fit_together,
    layer_cost,
    load_plugin,
    output_error,
    share,
    with_pools,
)
from rank_search.layers.costs import count_macs
from rank_search.point import Choice
from rank_search.testing import FactorizationLaws


class TestLaws(FactorizationLaws):
    factorization = SharedBasis
    equality = True


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, seed: int) -> Tensor:
    """Of inputs that depend on each other and differ in size."""
    inputs = (normal(300, size, seed=seed) @ normal(size, size, seed=seed + 1)).relu() * (
        normal(size, seed=seed + 2) / 2
    ).exp()
    return inputs.T @ inputs / len(inputs)


def pool(*layers: Layer) -> list[Layer]:
    named = {str(place): replace(layer, name=str(place)) for place, layer in enumerate(layers)}
    return list(with_pools(named, {"0": tuple(named)}, {"": SharedBasis}).values())


def fitted(rank: int, weights: list[Tensor], moments: list[Tensor] | None = None) -> list[SharedBasis]:
    kind = {2: "linear", 3: "conv1d", 4: "conv2d"}[weights[0].dim()]
    layers = pool(*(Layer("", kind, tuple(weight.shape), dtype=weight.dtype) for weight in weights))
    forms = [SharedBasis(layer, rank=rank) for layer in layers]
    share(forms)
    known: list[Tensor | None] = list(moments) if moments else [None] * len(weights)
    fit_together(forms, weights, [DirectBases(*each) for each in zip(weights, known, strict=True)])
    return forms


def far(forms: list[SharedBasis], weights: list[Tensor], moments: list[Tensor] | None = None) -> float:
    """What a search adds up."""
    known: list[Tensor | None] = list(moments) if moments else [None] * len(weights)
    total = 0.0
    for form, weight, each in zip(forms, weights, known, strict=True):
        total += output_error(weight, form.dense(), each) / output_error(weight, torch.zeros_like(weight), each)
    return total


def test_a_basis_that_is_shared_is_found_whatever_the_sizes_and_the_inputs() -> None:
    basis = normal(4, 30)
    weights = [10.0**place * normal(7, 4, seed=place + 1) @ basis for place in range(3)]
    assert far(fitted(4, weights), weights) < 1e-9
    moments = [10.0**-place * moment(30, 10 * place + 5) for place in range(3)]
    assert far(fitted(4, weights, moments), weights, moments) < 1e-9


@pytest.mark.parametrize("rank", [1, 5, 11])
def test_it_is_the_truncated_svd_of_all_weights_below_each_other(rank: int) -> None:
    weights = [3.0**place * normal(6, 2, 3, 3, seed=place) for place in range(3)]
    sizes = [weight.norm() for weight in weights]
    rows = torch.cat([weight.flatten(1) / size for weight, size in zip(weights, sizes, strict=True)])
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    closest = (left[:, :rank] * values[:rank] @ right[:rank]).chunk(3)
    for form, size, each in zip(fitted(rank, weights), sizes, closest, strict=True):
        torch.testing.assert_close(form.dense().flatten(1), size * each)
        torch.testing.assert_close(form.basis.flatten(1) @ form.basis.flatten(1).T, torch.eye(rank).double())


def test_with_inputs_of_one_moment_no_other_basis_is_closer() -> None:
    """Against gradient descent from the fit on the basis, every mixing being the best for it."""
    weights, moments = [normal(5, 12, seed=place) for place in range(3)], [moment(12, 7)] * 3
    forms = fitted(3, weights, moments)
    U = forms[0].basis.detach().clone().requires_grad_()

    def lost() -> Tensor:
        total = torch.zeros(()).double()
        for weight, C in zip(weights, moments, strict=True):
            V = weight @ C @ U.T @ torch.linalg.inv(U @ C @ U.T)
            apart = weight - V @ U
            total = total + torch.trace(apart @ C @ apart.T) / torch.trace(weight @ C @ weight.T)
        return total

    assert lost().item() == pytest.approx(far(forms, weights, moments), rel=1e-4)
    (gradient,) = torch.autograd.grad(lost(), U)
    assert gradient.norm() < 1e-4
    with torch.no_grad():
        start = lost().item()
        for seed in range(20):
            U += 0.02 * normal(*U.shape, seed=seed)
            assert lost().item() > start - 1e-6
            U.copy_(forms[0].basis)


def test_each_mixing_is_the_best_for_its_own_inputs_and_outputs_are_nearer_than_without_them() -> None:
    weights, moments = [normal(8, 20, seed=place) for place in range(3)], [moment(20, 10 * place) for place in range(3)]
    forms = fitted(6, weights, moments)
    for form, weight, C in zip(forms, weights, moments, strict=True):
        U = form.basis
        torch.testing.assert_close(form.mixing, weight @ C @ U.T @ torch.linalg.inv(U @ C @ U.T), atol=1e-3, rtol=1e-3)
    assert far(forms, weights, moments) < 0.9 * far(fitted(6, weights), weights, moments)


def test_a_layer_by_itself_is_the_plain_svd() -> None:
    weight, C = normal(6, 4, 3, 3), moment(36, 1)
    layer = Layer("", "conv2d", (6, 4, 3, 3), dtype=torch.float64)
    one, other = SharedBasis(layer, rank=3), ChannelSVD(layer, rank=3)
    for each in (one, other):
        each.fit(weight, DirectBases(weight, C))
    torch.testing.assert_close(one.dense(), other.dense(), atol=1e-4, rtol=1e-4)


def test_macs_and_parameters_are_those_of_the_svd_but_for_the_basis() -> None:
    layers = pool(*(replace(Layer.of(nn.Conv2d(6, 8, 3, padding=1)), inputs=((1, 6, 5, 5),)) for _ in range(3)))
    choice, svd = Choice("", {"rank": 4}), load_plugin("svd")
    found = [layer_cost(layer, SharedBasis, choice) for layer in layers]
    plain = [layer_cost(layer, svd, choice) for layer in layers]
    assert [each.macs for each in found] == [each.macs for each in plain] == [25 * 4 * (54 + 8)] * 3
    assert [each.params for each in plain] == [4 * 54 + 4 * 8 + 8] * 3
    assert [each.params for each in found] == [4 * 54 + 4 * 8 + 8, 4 * 8 + 8, 4 * 8 + 8]
    form = SharedBasis(layers[1], rank=4)
    assert count_macs(form, [torch.zeros(1, 6, 5, 5)]) == 25 * 4 * (54 + 8)


@pytest.mark.parametrize(
    "other",
    [
        Layer("", "conv2d", (8, 6, 1, 1)),
        Layer("", "conv2d", (8, 6, 3, 3), dtype=torch.float64),
        Layer("", "conv2d", (8, 6, 3, 3), groups=2),
    ],
)
def test_layers_of_different_shape_share_none(other: Layer) -> None:
    layer = Layer("", "conv2d", (8, 6, 3, 3))
    assert [SharedBasis.axes(each) for each in pool(layer, layer, other)] == [(), (), ()]
    (axis,) = SharedBasis.axes(pool(layer, replace(layer, stride=(2, 2)), layer)[1])
    assert (axis.low, axis.high) == (1, 24)


def test_the_rank_is_at_most_what_the_rows_have() -> None:
    assert SharedBasis.axes(Layer("", "linear", (50, 6)))[0].high == 6
    assert [SharedBasis.axes(each)[0].high for each in pool(*[Layer("", "linear", (5, 12))] * 3)] == [12] * 3
    assert [SharedBasis.axes(each)[0].high for each in pool(*[Layer("", "linear", (5, 12))] * 2)] == [10] * 2
    weights = [normal(5, 12, seed=place) for place in range(3)]
    assert far(fitted(12, weights), weights) < 1e-9, "at the largest rank nothing is lost"
