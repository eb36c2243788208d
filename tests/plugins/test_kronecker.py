"""Sums of Kronecker products: the laws, `torch.kron`, planted sums, and how close they come to the outputs."""

from __future__ import annotations

import pytest
import torch
from rank_search_plugins import kronecker
from rank_search_plugins.kronecker import KroneckerSum, Outputs, by_block
from torch import Tensor, nn

from rank_search.layers import DirectBases, Layer, count_params, output_error
from rank_search.layers.costs import count_macs
from rank_search.testing import FactorizationLaws
from tests.plugins.fit_oracles import check_full_ranks, descended, moment, normal

LINEAR = Layer("x", "linear", (12, 16), dtype=torch.float64, inputs=((3, 5, 16),))
CONV = Layer("x", "conv2d", (5, 8, 3, 3), padding=((1, 1), (1, 1)), dtype=torch.float64, inputs=((2, 8, 6, 4),))
BOTH = pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])


class TestLaws(FactorizationLaws):
    factorization = KroneckerSum
    equality = True


def fitted(layer: Layer, rank: int, weight: Tensor, bases: DirectBases | None = None) -> KroneckerSum:
    form = KroneckerSum(layer, rank=rank)
    form.fit(weight, bases or DirectBases(weight))
    return form


def summed(layer: Layer, coarse: Tensor, fine: Tensor) -> Tensor:
    """Σᵣ Aᵣ ⊗ Bᵣ by `torch.kron`, at each place of the kernel."""
    places = fine.reshape(*fine.shape[:3], -1).unbind(-1)
    products = [sum(torch.kron(A, B) for A, B in zip(coarse, place, strict=True)) for place in places]
    return torch.stack(products, -1).view(layer.shape)  # type: ignore[arg-type]


def planted(layer: Layer) -> Tensor:
    out, inputs = (4, 4) if layer is LINEAR else (5, 2)
    fine = normal(2, layer.out_features // out, layer.in_features // inputs, *layer.shape[2:], seed=5)
    return summed(layer, normal(2, out, inputs, seed=4), fine)


@pytest.mark.parametrize(
    "layer",
    [
        Layer("x", "linear", (7, 5)),
        Layer("x", "conv2d", (8, 5, 3, 3)),
        Layer("x", "conv2d", (8, 1, 3, 3)),
        Layer("x", "conv2d", (6, 4, 3, 3), groups=2),
        Layer("x", "embedding", (8, 100)),
    ],
)
def test_it_does_not_apply_where_it_would_be_an_svd_and_to_groups_and_tables(layer: Layer) -> None:
    assert KroneckerSum.axes(layer) == ()


@pytest.mark.parametrize(
    ("shape", "coarse", "high"),
    [((12, 16), (4, 4), 12), ((64, 64, 3, 3), (64, 8), 72), ((64, 32, 1, 1), (64, 4), 8), ((7, 8), (7, 2), 4)],
)
def test_the_rank_is_at_most_that_of_the_blocks(shape: tuple[int, ...], coarse: tuple[int, int], high: int) -> None:
    layer = Layer("x", "conv2d" if shape[2:] else "linear", shape)
    (axis,) = KroneckerSum.axes(layer)
    assert (axis.low, axis.high, axis.unfoldings) == (1, high, (by_block,))
    assert KroneckerSum(layer, rank=1).sizes == coarse
    assert min(by_block(normal(*shape)).shape) == high


@BOTH
def test_its_weight_is_the_sum_of_kronecker_products(layer: Layer) -> None:
    form = KroneckerSum(layer, rank=3)
    for seed, parameter in enumerate(form.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    coarse = form.coarse.view(*form.sizes, 3).permute(2, 0, 1)
    fine = form.fine.view(-1, 3, *form.fine.shape[1:]).transpose(0, 1)
    torch.testing.assert_close(form.dense(), summed(layer, coarse, fine))


@BOTH
@pytest.mark.parametrize("known", ["nothing", "inputs"])
def test_a_planted_sum_is_found_with_orthonormal_frames(layer: Layer, known: str) -> None:
    weight = planted(layer)
    form = fitted(layer, 2, weight, DirectBases(weight, None if known == "nothing" else moment(weight[0].numel())))
    torch.testing.assert_close(form.dense(), weight, rtol=1e-4, atol=1e-4)
    (frame,) = form.frames()
    torch.testing.assert_close(frame.T @ frame, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("layer", "numbers", "macs"),
    [
        (LINEAR, 3 * (4 * 4 + 3 * 4), 15 * 3 * (16 * 3 + 12 * 4)),
        (CONV, 3 * (5 * 2 + 4 * 9), 48 * 3 * (8 * 9 + 5 * 2)),
    ],
    ids=["linear", "conv"],
)
def test_costs_are_the_closed_form(layer: Layer, numbers: int, macs: int) -> None:
    form = KroneckerSum(layer, rank=3)
    assert count_params(form) == numbers + layer.out_features
    assert count_macs(form, [torch.zeros(layer.inputs[0], dtype=torch.float64)]) == macs


@BOTH
@pytest.mark.parametrize("rank", [2, 4])
def test_alternating_goes_where_gradient_descent_gets(layer: Layer, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle: both factors moved together, from the fit on. As many sweeps as there are come most of the way."""
    weight = normal(*layer.shape)
    C, found = moment(weight[0].numel()), []
    for sweeps in (kronecker.SWEEPS, 100):
        monkeypatch.setattr(kronecker, "SWEEPS", sweeps)
        form = fitted(layer, rank, weight, DirectBases(weight, C))
        found.append(output_error(weight, form.dense(), C))
    plain = output_error(weight, fitted(layer, rank, weight).dense(), C)
    least = descended(form, weight, C)
    assert found[1] <= 1.05 * least
    assert found[0] <= min(1.2 * least, 0.8 * plain)


@BOTH
def test_the_closed_form_is_the_best_where_the_moment_is_a_product(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle: the singular values of the blocks in coordinates in which all inputs are alike."""
    inputs = 4 if layer is LINEAR else 2
    first, second = moment(inputs), moment(layer.in_features // inputs * (1 if layer is LINEAR else 9))
    weight, C = normal(*layer.shape), torch.kron(first, second)
    monkeypatch.setattr(Outputs, "closer", lambda self, stacked: stacked)
    error = output_error(weight, fitted(layer, 3, weight, DirectBases(weight, C)).dense(), C)
    L = torch.kron(*map(torch.linalg.cholesky, (first, second)))
    seen = by_block((weight.flatten(1) @ L).view(weight.shape))
    assert error == pytest.approx(float(torch.linalg.svdvals(seen)[3:].square().sum()), rel=1e-4)


def test_factors_that_are_too_large_are_left_as_the_closed_form_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, C = normal(*CONV.shape), moment(72)
    errors = [output_error(weight, fitted(CONV, 4, weight, DirectBases(weight, C)).dense(), C)]
    for most in (2, 0):  # the chunks are solved for, then nothing
        monkeypatch.setattr(kronecker, "is_solved", lambda rank, size, inputs, most=most: size <= most)
        errors.append(output_error(weight, fitted(CONV, 4, weight, DirectBases(weight, C)).dense(), C))
    errors.append(output_error(weight, fitted(CONV, 4, weight).dense(), C))
    assert errors == sorted(errors)
    assert len(set(errors)) == 4


def test_each_rank_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(*CONV.shape)
    bases = DirectBases(weight, moment(72))
    first = fitted(CONV, 3, weight, bases).dense()
    monkeypatch.setattr(Outputs, "closer", None)
    assert torch.equal(fitted(CONV, 3, weight, bases).dense(), first)
    with pytest.raises(TypeError):
        fitted(CONV, 4, weight, bases)


def test_outputs_are_led_back_where_the_coarse_factors_have_them_all() -> None:
    weight, matrix = normal(*CONV.shape), normal(5, 5, seed=8)
    form = fitted(CONV, 3, weight)
    wanted = (matrix @ form.dense().flatten(1)).view(weight.shape)
    assert form.map_outputs(matrix)
    torch.testing.assert_close(form.dense(), wanted)
    (frame,) = form.frames()
    torch.testing.assert_close(frame.T @ frame, torch.eye(3, dtype=torch.float64))
    assert not fitted(LINEAR, 3, normal(*LINEAR.shape)).map_outputs(normal(12, 12))


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(12, 18),
        nn.Conv2d(8, 6, 3, 2, padding=1, padding_mode="reflect"),
        nn.Conv1d(8, 6, 5),
        nn.Conv2d(8, 12, 1, stride=2),
        nn.Conv3d(4, 6, 2),
        nn.ConvTranspose2d(8, 6, 4, 2, padding=1),
    ],
    ids=str,
)
def test_at_full_rank_it_is_the_layer_for_batches_single_examples_and_either_memory_format(module: nn.Module) -> None:
    check_full_ranks(KroneckerSum, module)
