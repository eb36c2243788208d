"""One weight for a pool and differences of low rank: the laws, planted ones, the least common error, and counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rank_search_plugins.shared_plus_own import SharedPlusOwn, common_weight
from torch import Tensor

from rank_search.layers import DirectBases, Layer, fit_together, layer_cost, output_error, share, with_pools
from rank_search.point import Choice
from rank_search.testing import FactorizationLaws


class TestLaws(FactorizationLaws):
    factorization = SharedPlusOwn


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, seed: int) -> Tensor:
    """Of inputs that depend on each other."""
    inputs = (normal(300, size, seed=seed) @ normal(size, size, seed=seed + 1)).relu()
    return inputs.T @ inputs / len(inputs)


def pool(*layers: Layer) -> list[Layer]:
    named = {str(place): replace(layer, name=str(place)) for place, layer in enumerate(layers)}
    return list(with_pools(named, {"0": tuple(named)}, {"": SharedPlusOwn}).values())


def fitted(rank: int, weights: list[Tensor], moments: list[Tensor] | None = None) -> list[SharedPlusOwn]:
    kind = {2: "linear", 4: "conv2d"}[weights[0].dim()]
    layers = pool(*(Layer("", kind, tuple(weight.shape), dtype=weight.dtype) for weight in weights))
    forms = [SharedPlusOwn(layer, rank=rank) for layer in layers]
    share(forms)
    known: list[Tensor | None] = list(moments) if moments else [None] * len(weights)
    fit_together(forms, weights, [DirectBases(*each) for each in zip(weights, known, strict=True)])
    return forms


def errors(forms: list[SharedPlusOwn], weights: list[Tensor], moments: list[Tensor | None]) -> list[float]:
    found = zip(forms, weights, moments, strict=True)
    return [output_error(weight, form.dense(), C) / output_error(weight, 0 * weight, C) for form, weight, C in found]


@pytest.mark.parametrize("seen", [False, True])
def test_equal_weights_are_met_whatever_the_rank(seen: bool) -> None:
    weight = normal(6, 3, 3, 3)
    moments = [moment(27, 10 * place) for place in range(3)] if seen else None
    for form in fitted(1, [weight] * 3, moments):
        torch.testing.assert_close(form.dense(), weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seen", [False, True])
def test_two_weights_that_differ_by_a_low_rank_are_met_at_that_rank(seen: bool) -> None:
    """Their mean is between them, so that each differs from it by the same rank."""
    weight = normal(8, 12)
    weights = [weight, weight + normal(8, 2, seed=1) @ normal(2, 12, seed=2)]
    moments = [moment(12, 5)] * 2 if seen else None
    known: list[Tensor | None] = list(moments) if moments else [None] * 2
    assert max(errors(fitted(2, weights, moments), weights, known)) < 1e-9
    assert max(errors(fitted(1, weights, moments), weights, known)) > 1e-3


def test_the_common_weight_has_the_least_error_of_all() -> None:
    weights, moments = [normal(4, 9, seed=place) for place in range(3)], [moment(9, 7 * place) for place in range(3)]
    W = common_weight(weights, moments).requires_grad_()

    def lost() -> Tensor:
        pairs = zip(weights, moments, strict=True)
        return sum(
            (torch.trace((own - W) @ C @ (own - W).T) / torch.trace(own @ C @ own.T) for own, C in pairs),
            torch.zeros(()).double(),
        )

    (gradient,) = torch.autograd.grad(lost(), W)
    assert gradient.norm() < 1e-4
    least = lost().item()
    with torch.no_grad():
        for seed in range(10):
            W += 0.05 * normal(4, 9, seed=seed)
            assert lost().item() > least


def test_without_inputs_the_common_weight_is_the_mean() -> None:
    weights = [normal(4, 9), -normal(4, 9).flip(0), normal(4, 9).roll(1, 0)]  # of one norm
    for moments in ([torch.zeros(9, 9)] * 3, [torch.ones(9)] * 3):
        torch.testing.assert_close(common_weight(weights, moments), torch.stack(weights).mean(0))


def test_the_own_part_is_the_truncated_svd_of_the_difference() -> None:
    weights = [normal(6, 4, 3, 3, seed=place) for place in range(3)]
    W = common_weight([each.flatten(1) for each in weights], [torch.ones(36)] * 3)
    for form, weight in zip(fitted(2, weights), weights, strict=True):
        left, values, right = torch.linalg.svd(weight.flatten(1) - W, full_matrices=False)
        torch.testing.assert_close(form.dense().flatten(1), W + (left[:, :2] * values[:2]) @ right[:2])


def test_outputs_are_nearer_than_without_their_inputs() -> None:
    weights, moments = [normal(8, 20, seed=place) for place in range(3)], [moment(20, 10 * place) for place in range(3)]
    seen, blind = (sum(errors(fitted(4, weights, each), weights, list(moments))) for each in (moments, None))
    assert seen < 0.9 * blind


def test_the_pool_is_three_tensors_and_each_layer_trains_its_own_part() -> None:
    forms = fitted(2, [normal(5, 7, seed=place) for place in range(3)])
    assert {name: tuple(each.shape) for name, each in forms[1].named_parameters() if name != "bias"} == {
        "common": (5, 7),
        "left": (3, 5, 2),
        "right": (3, 2, 7),
    }
    forms[1].dense().sum().backward()
    gradient = forms[0].left.grad
    assert gradient is not None
    assert [bool(each.any()) for each in gradient] == [False, True, False]


def test_parameters_are_one_weight_and_all_the_differences() -> None:
    layers = pool(*(Layer("", "linear", (8, 6), inputs=((1, 6),)) for _ in range(4)))
    found = [layer_cost(layer, SharedPlusOwn, Choice("", {"rank": 2})) for layer in layers]
    assert [each.params for each in found] == [8 * 6 + 4 * 2 * (8 + 6) + 8, 8, 8, 8]
    assert [each.macs for each in found] == [8 * 6] * 4


@pytest.mark.parametrize("other", [Layer("", "linear", (8, 5)), Layer("", "linear", (8, 6), dtype=torch.float64)])
def test_layers_of_different_shape_share_none(other: Layer) -> None:
    layer = Layer("", "linear", (8, 6))
    assert [SharedPlusOwn.axes(each) for each in pool(layer, layer, other)] == [(), (), ()]
    (axis,) = SharedPlusOwn.axes(pool(layer, layer)[0])
    assert (axis.low, axis.high) == (1, 6)
