"""Tensor trains: the laws, planted cores, costs in closed form, and how close they come to the outputs."""

from __future__ import annotations

import pytest
import torch
from rank_search_plugins import train_fits
from rank_search_plugins.tensor_train import TensorTrain, first_unfolding, last_unfolding
from rank_search_plugins.train_fits import Outputs, as_train, modes
from torch import Tensor, nn

from rank_search.layers import DirectBases, Layer, count_params, output_error
from rank_search.layers.costs import count_macs
from rank_search.testing import FactorizationLaws
from tests.plugins.fit_oracles import check_full_ranks, descended, moment, normal

LINEAR = Layer("x", "linear", (18, 16), dtype=torch.float64, inputs=((3, 5, 16),))
CONV = Layer("x", "conv2d", (5, 8, 3, 3), padding=((1, 1), (1, 1)), dtype=torch.float64, inputs=((2, 8, 6, 4),))
BOTH = pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])


class TestLaws(FactorizationLaws):
    factorization = TensorTrain


def fitted(layer: Layer, ranks: tuple[int, int], weight: Tensor, bases: DirectBases | None = None) -> TensorTrain:
    form = TensorTrain(layer, rank_1=ranks[0], rank_2=ranks[1])
    form.fit(weight, bases or DirectBases(weight))
    return form


def train(shape: tuple[int, ...], first: Tensor, middle: Tensor, last: Tensor) -> Tensor:
    """The weight entry by entry, out of cores whose modes are an output's, an input's and, in the middle, a place."""
    (_, m2, m3), (_, n2, n3) = modes(shape)
    weight = torch.zeros(shape, dtype=torch.float64).flatten(2) if shape[2:] else torch.zeros(*shape, 1).double()
    for o, i, s in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
        A = first[o // (m2 * m3), i // (n2 * n3)]
        G = middle[:, o // m3 % m2, i // n3 % n2, s]
        weight[o, i, s] = A @ G @ last[o % m3, i % n3]
    return weight.view(shape)


def planted(shape: tuple[int, ...], p: int, q: int) -> Tensor:
    (m1, m2, m3), (n1, n2, n3) = modes(shape)
    pixels = torch.Size(shape[2:]).numel()
    cores = normal(m1, n1, p, seed=5), normal(p, m2, n2, pixels, q, seed=6), normal(m3, n3, q, seed=7)
    return train(shape, *cores)


@pytest.mark.parametrize(
    "layer",
    [
        Layer("x", "linear", (7, 5)),
        Layer("x", "conv2d", (8, 5, 3, 3)),
        Layer("x", "conv2d", (8, 1, 3, 3)),
        Layer("x", "conv2d", (6, 3, 3, 3), groups=2),
        Layer("x", "embedding", (8, 100)),
    ],
)
def test_it_does_not_apply_where_nothing_is_cut(layer: Layer) -> None:
    assert TensorTrain.axes(layer) == ()


@pytest.mark.parametrize(
    ("shape", "high"), [((18, 16), (6, 8)), ((64, 64, 3, 3), (72, 8)), ((64, 32, 1, 1), (8, 16)), ((7, 8), (4, 2))]
)
def test_ranks_are_at_most_those_of_the_unfoldings(shape: tuple[int, ...], high: tuple[int, int]) -> None:
    axes = TensorTrain.axes(Layer("x", "conv2d" if shape[2:] else "linear", shape))
    weight = normal(*shape)
    assert tuple(axis.high for axis in axes) == high
    assert tuple(min(axis.unfoldings[0](weight).shape) for axis in axes) == high
    assert [axis.unfoldings for axis in axes] == [(first_unfolding,), (last_unfolding,)]


@BOTH
def test_its_weight_is_the_product_of_the_cores_at_each_entry(layer: Layer) -> None:
    form = TensorTrain(layer, rank_1=3, rank_2=2)
    for seed, parameter in enumerate(form.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    m, n = form.modes
    first, last = form.first.view(m[0], n[0], 3), form.last.view(m[2], 2, n[2]).transpose(1, 2)
    middle = form.middle.view(m[1], 3, n[1], 2, -1).permute(1, 0, 2, 4, 3)
    torch.testing.assert_close(form.dense(), train(layer.shape, first, middle, last).detach())


@BOTH
@pytest.mark.parametrize("known", ["nothing", "inputs"])
def test_planted_cores_are_found_with_orthonormal_frames(layer: Layer, known: str) -> None:
    weight = planted(layer.shape, 3, 2)
    bases = DirectBases(weight, None if known == "nothing" else moment(weight[0].numel()))
    form = fitted(layer, (3, 2), weight, bases)
    torch.testing.assert_close(form.dense(), weight, rtol=1e-4, atol=1e-4)
    for frame, rank in zip(form.frames(), (3, 2), strict=True):
        torch.testing.assert_close(frame.T @ frame, torch.eye(rank, dtype=torch.float64))


@BOTH
def test_the_fit_to_the_weight_lies_between_the_larger_tail_and_both(layer: Layer) -> None:
    weight = normal(*layer.shape)
    tails = [float(torch.linalg.svdvals(cut(weight))[4:].square().sum()) for cut in (first_unfolding, last_unfolding)]
    error = float((weight - fitted(layer, (4, 4), weight).dense()).detach().square().sum())
    assert max(tails) <= error * (1 + 1e-9)
    assert error <= sum(tails) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("layer", "first", "middle", "last", "macs"),
    [
        (LINEAR, 3 * 2 * 3, 3 * 3 * 2 * 2, 2 * 2 * 4, 15 * (16 * 2 * 2 + 2 * 2 * (3 * 3) * (2 * 2) + 18 * 2 * 3)),
        (CONV, 5 * 2 * 3, 3 * 9 * 2, 4 * 2, 48 * (8 * 2 + 2 * 9 * 3 * 2 + 5 * 2 * 3)),
    ],
    ids=["linear", "conv"],
)
def test_costs_are_the_closed_form(layer: Layer, first: int, middle: int, last: int, macs: int) -> None:
    form = TensorTrain(layer, rank_1=3, rank_2=2)
    assert count_params(form) == first + middle + last + layer.out_features
    assert count_macs(form, [torch.zeros(layer.inputs[0], dtype=torch.float64)]) == macs


@BOTH
@pytest.mark.parametrize("ranks", [(2, 2), (4, 3)])
def test_alternating_goes_where_gradient_descent_gets(
    layer: Layer, ranks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle: all cores moved together, from the fit on. As many sweeps as there are come most of the way."""
    weight = normal(*layer.shape)
    C, found = moment(weight[0].numel()), []
    for sweeps in (train_fits.SWEEPS, 100):
        monkeypatch.setattr(train_fits, "SWEEPS", sweeps)
        form = fitted(layer, ranks, weight, DirectBases(weight, C))
        found.append(output_error(weight, form.dense(), C))
    plain = output_error(weight, fitted(layer, ranks, weight).dense(), C)
    least = descended(form, weight, C)
    assert found[1] <= 1.05 * least
    assert found[0] <= min(1.35 * least, 0.7 * plain)


@BOTH
def test_the_closed_form_is_the_best_where_the_moment_is_a_product(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one core's modes alone: the others' are seen as they are, and one rank is not cut, so that an SVD is exact."""
    (_, n), pixels = modes(layer.shape), torch.Size(layer.shape[2:]).numel()
    C = torch.kron(moment(n[0]), torch.eye(n[1] * n[2] * pixels, dtype=torch.float64))
    weight, ranks = normal(*layer.shape), (3, int(TensorTrain.axes(layer)[1].high))
    monkeypatch.setattr(Outputs, "closer", lambda self, cores: cores)
    error = output_error(weight, fitted(layer, ranks, weight, DirectBases(weight, C)).dense(), C)
    L = torch.linalg.cholesky(C)
    seen = first_unfolding((weight.flatten(1) @ L).view(weight.shape))
    assert error == pytest.approx(float(torch.linalg.svdvals(seen)[3:].square().sum()), rel=1e-4)


def test_cores_that_are_too_large_are_left_as_the_closed_form_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(*CONV.shape)
    C = moment(72)
    solved = output_error(weight, fitted(CONV, (4, 2), weight, DirectBases(weight, C)).dense(), C)
    monkeypatch.setattr(train_fits, "is_solved", lambda *_: False)
    monkeypatch.setattr(train_fits, "best_end", None)
    closed = output_error(weight, fitted(CONV, (4, 2), weight, DirectBases(weight, C)).dense(), C)
    plain = output_error(weight, fitted(CONV, (4, 2), weight).dense(), C)
    assert solved < 0.9 * closed < 0.9 * plain


def test_each_pair_of_ranks_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(*CONV.shape)
    bases = DirectBases(weight, moment(72))
    first = fitted(CONV, (3, 2), weight, bases).dense()
    monkeypatch.setattr(Outputs, "closer", None)
    assert torch.equal(fitted(CONV, (3, 2), weight, bases).dense(), first)
    with pytest.raises(TypeError):
        fitted(CONV, (3, 3), weight, bases)


def test_outputs_are_led_back_where_the_first_core_has_them_all() -> None:
    weight, matrix = normal(*CONV.shape), normal(5, 5, seed=8)
    form = fitted(CONV, (3, 2), weight)
    wanted = (matrix @ form.dense().flatten(1)).view(weight.shape)
    assert form.map_outputs(matrix)
    torch.testing.assert_close(form.dense(), wanted)
    first, _ = form.frames()
    torch.testing.assert_close(first.T @ first, torch.eye(3, dtype=torch.float64))
    assert not fitted(LINEAR, (3, 2), normal(*LINEAR.shape)).map_outputs(normal(18, 18))


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
def test_at_full_ranks_it_is_the_layer_for_batches_single_examples_and_either_memory_format(module: nn.Module) -> None:
    check_full_ranks(TensorTrain, module)


def test_as_train_has_the_modes_of_a_core_together() -> None:
    weight = torch.arange(64 * 32 * 9.0).view(64, 32, 3, 3)
    (m1, _, m3), (n1, _, n3) = modes((64, 32, 3, 3))
    assert (m1, m3, n1, n3) == (64, 1, 4, 8)
    assert as_train(weight)[5 * 4 + 2, 7, 3] == weight[5, 2 * 8 + 3, 2, 1]
