"""Fits in the metric of the loss: closest where the gradients are, by closed forms and by what else there is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from rank_search.layers import Bases, DirectBases, Factorization, Layer, fit_to, load_plugin, output_error
from rank_search.layers.metric import DAMPING
from rank_search.testing.case import axis_values

NAMES = ("svd", "svd-spatial", "tucker2", "cp", "filter-basis")
SHAPE = (8, 6, 3, 3)
LAYER = Layer("x", "conv2d", SHAPE, dtype=torch.float64)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, seed: int) -> Tensor:
    """With very unequal eigenvalues, in directions that are no axes."""
    X = normal(5 * size, size, seed=seed) * torch.logspace(0, -2, size, dtype=torch.float64)
    X = X @ torch.linalg.qr(normal(size, size, seed=seed + 1))[0]
    return X.T @ X / len(X)


W, C, G = normal(*SHAPE, seed=0), moment(54, 1), moment(8, 3)


def loss_error(difference: Tensor) -> float:
    """Σ over pairs of outputs and pairs of inputs, the damped G written out."""
    D, damped = difference.detach().flatten(1), G + DAMPING * G.diagonal().mean() * torch.eye(8).double()
    return float(torch.einsum("ab,bj,jk,ak->", damped, D, C, D))


def fitted(name: str, values: dict[str, float], bases: DirectBases) -> Factorization:
    form = load_plugin(name)(LAYER, **values)
    with torch.no_grad():
        for parameter in form.parameters():
            parameter.fill_(torch.nan)
    fit_to(form, W, bases)
    return form


@pytest.mark.parametrize("rank", [1, 3, 7, 8])
def test_svd_has_the_least_error_of_its_rank(rank: int) -> None:
    squares, vectors = torch.linalg.eigh(G + DAMPING * G.diagonal().mean() * torch.eye(8).double())
    L, R = (vectors * squares.sqrt()) @ vectors.T, torch.linalg.cholesky(C)
    tail = torch.linalg.svdvals(L @ W.flatten(1) @ R)[rank:].square().sum()
    found = loss_error(W - fitted("svd", {"rank": rank}, DirectBases(W, C, G)).dense())
    assert found == pytest.approx(float(tail), rel=1e-5, abs=1e-9 * loss_error(W))


@pytest.mark.parametrize("name", NAMES)
def test_fits_that_know_the_loss_are_closer_to_it(name: str) -> None:
    """Never farther, and of all cuts together closer by far."""
    found, before = [], []
    for values in axis_values(load_plugin(name).axes(LAYER)):
        forms = (fitted(name, values, bases) for bases in (DirectBases(W, C, G), DirectBases(W, C)))
        now, then = (loss_error(W - form.dense()) / loss_error(W) for form in forms)
        found.append(now)
        before.append(then)
    assert all(now <= then + 1e-9 for now, then in zip(found, before, strict=True))
    assert sum(found) < 0.97 * sum(before)


@pytest.mark.parametrize("name", ["svd", "tucker2"])
def test_frames_stay_orthonormal(name: str) -> None:
    for values in axis_values(load_plugin(name).axes(LAYER)):
        for frame in fitted(name, values, DirectBases(W, C, G)).frames():
            torch.testing.assert_close(frame.T @ frame, torch.eye(frame.shape[1]).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_mapped_outputs_are_those_of_the_mapped_weight(name: str) -> None:
    matrix = normal(8, 8, seed=9)
    for values in axis_values(load_plugin(name).axes(LAYER)):
        form = fitted(name, values, DirectBases(W, C))
        wanted = (matrix @ form.dense().flatten(1)).view(SHAPE)
        shapes = [each.shape for each in form.parameters()]
        assert form.map_outputs(matrix)
        torch.testing.assert_close(form.dense(), wanted, rtol=1e-9, atol=1e-9)
        assert [each.shape for each in form.parameters()] == shapes


def test_a_diagonal_stands_for_its_matrix() -> None:
    often = normal(8, seed=11).square()
    for values in ({"rank": 1}, {"rank": 3}):
        found, wanted = (fitted("svd", values, DirectBases(W, C, each)) for each in (often, torch.diag(often)))
        torch.testing.assert_close(found.dense(), wanted.dense(), rtol=1e-6, atol=1e-9)
        (frame,) = found.frames()
        torch.testing.assert_close(frame.T @ frame, torch.eye(frame.shape[1]).double(), rtol=0, atol=1e-9)
    one, other = (DirectBases(W, C, each).weighed for each in (often, torch.diag(often)))
    assert one is not None
    assert other is not None
    assert one.total == pytest.approx(other.total, rel=1e-9)
    assert one.error(W, W + 1) == pytest.approx(other.error(W, W + 1), rel=1e-9)


def test_a_form_that_cannot_be_scaled_is_fitted_to_the_outputs() -> None:
    wanted = fitted("tucker2", {"rank_out": 3, "rank_in": 3}, DirectBases(W, C)).dense()
    found = fitted("tucker2", {"rank_out": 3, "rank_in": 3}, DirectBases(W, C, normal(8, seed=11).square()))
    assert torch.equal(found.dense(), wanted)


def test_a_form_that_cannot_be_led_back_is_fitted_to_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = fitted("svd", {"rank": 3}, DirectBases(W, C)).dense()
    assert not torch.equal(fitted("svd", {"rank": 3}, DirectBases(W, C, G)).dense(), wanted)
    monkeypatch.delattr(load_plugin("svd"), "map_outputs")
    assert torch.equal(fitted("svd", {"rank": 3}, DirectBases(W, C, G)).dense(), wanted)


@pytest.mark.parametrize(("name", "fits"), [("svd", 2), ("buckets", 1)])
def test_a_form_that_says_of_no_way_back_is_not_fitted_to_the_loss(
    name: str, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, seen = load_plugin(name), []
    fit = plugin.fit

    def counted(self: Factorization, weight: Tensor, bases: Bases) -> None:
        seen.append(weight)
        fit(self, weight, bases)

    monkeypatch.setattr(plugin, "fit", counted)
    (axis,) = plugin.axes(LAYER)
    fitted(name, {axis.name: 3}, DirectBases(W, C, G))
    assert len(seen) == fits
    assert seen[0] is W


def test_gradients_of_zero_and_of_equal_size_change_nothing() -> None:
    wanted = fitted("svd", {"rank": 3}, DirectBases(W, C)).dense()
    for gradients in (torch.zeros(8, 8), 4 * torch.eye(8)):
        bases = DirectBases(W, C, gradients)
        torch.testing.assert_close(fitted("svd", {"rank": 3}, bases).dense(), wanted, rtol=1e-6, atol=1e-9)


def test_an_error_of_the_weighed_weight_is_one_of_the_loss() -> None:
    weighed = DirectBases(W, C, G).weighed
    assert weighed is not None
    other = normal(*SHAPE, seed=5)
    assert weighed.error(W, other) == pytest.approx(loss_error(W - other), rel=1e-9)
    zero = torch.zeros_like(weighed.weight)
    assert output_error(weighed.weight, zero, C) == pytest.approx(loss_error(W), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_led_back_too(name: str) -> None:
    plugin, found = load_plugin(name), []
    half = W.bfloat16()
    for dtype in (torch.bfloat16, torch.float32):
        layer = dataclasses.replace(LAYER, dtype=dtype)
        form = plugin(layer, **next(iter(axis_values(plugin.axes(layer)))))
        fit_to(form, half.to(dtype), DirectBases(half.to(dtype), C.float(), G.float()))
        assert {each.dtype for each in form.parameters()} == {dtype}
        found.append(loss_error(half.double() - form.dense().double()))
    assert found[0] == pytest.approx(found[1], rel=0.01)
