"""Least squares in the metric of the outputs, against samples, numpy and random rivals."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rank_search.layers import (
    fit_closer,
    nested_span,
    outer_fit,
    outer_fits,
    output_basis,
    output_error,
    root,
    seen_outputs,
)
from rank_search.layers.metric import RIDGE


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(samples: int, size: int, seed: int = 0) -> Tensor:
    """Correlated, of very different scales, and not centered: like what follows a ReLU."""
    mixed = normal(samples, size, seed=seed) @ normal(size, size, seed=seed + 1)
    return mixed.relu() * torch.logspace(0, -2, size, dtype=torch.float64)


def second_moment(X: Tensor) -> Tensor:
    return X.T @ X / len(X)


sizes = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000))


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_the_output_error_is_the_mean_over_the_inputs(drawn: tuple[int, int, int, int]) -> None:
    out, size, samples, seed = drawn
    W, other, X = normal(out, size, seed=seed), normal(out, size, seed=seed + 5), inputs(samples, size, seed)
    by_hand = sum(float(((W - other) @ x).square().sum()) for x in X) / samples
    assert output_error(W, other, second_moment(X)) == pytest.approx(by_hand, rel=1e-9, abs=1e-12)


def test_the_output_error_without_a_moment_is_the_squared_frobenius_norm() -> None:
    W, other = normal(4, 3, 2, 2), normal(4, 3, 2, 2, seed=1)
    assert output_error(W, other) == pytest.approx(float((W - other).norm() ** 2))
    assert output_error(W, other, torch.eye(12)) == pytest.approx(output_error(W, other))
    assert output_error(W, W, torch.eye(12)) == 0


def test_nan_stays_nan() -> None:
    assert np.isnan(output_error(torch.full((2, 3), float("nan")), torch.zeros(2, 3), torch.eye(3)))


# ---- the best weight of a rank ---------------------------------------------------------------------------


def cut(W: Tensor, C: Tensor, rank: int) -> Tensor:
    basis = output_basis(W, C)
    return basis.left[:, :rank] @ basis.projected[:rank]


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 7))
def test_dropped_values_of_an_output_basis_are_the_output_error(drawn: tuple[int, int, int, int], rank: int) -> None:
    out, size, samples, seed = drawn
    W, C = normal(out, size, seed=seed), second_moment(inputs(samples, size, seed))
    basis = output_basis(W, C)
    left = basis.left
    torch.testing.assert_close(left.T @ left, torch.eye(left.shape[1], dtype=left.dtype), rtol=0, atol=1e-10)
    total = output_error(W, torch.zeros_like(W), C)
    dropped = float(basis.values[rank:].square().sum())
    assert output_error(W, cut(W, C, rank), C) == pytest.approx(dropped, rel=1e-6, abs=1e-9 * total + 1e-15)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 6), st.integers(0, 1000))
def test_no_other_weight_of_that_rank_is_better(drawn: tuple[int, int, int, int], rank: int, rival: int) -> None:
    out, size, samples, seed = drawn
    W, C = normal(out, size, seed=seed), second_moment(inputs(samples, size, seed))
    best = output_error(W, cut(W, C, rank), C)
    left = normal(out, rank, seed=rival)
    at_random = left @ torch.linalg.lstsq(left, W).solution  # the best of its column space, without data
    nudged = cut(W + 0.1 * normal(out, size, seed=rival + 1), C, rank)
    for other in (left @ normal(rank, size, seed=rival + 2), at_random, nudged):
        assert best <= output_error(W, other, C) * (1 + 1e-7) + 1e-9 * output_error(W, torch.zeros_like(W), C)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_output_basis_truncates_as_svd_llm_does(rank: int) -> None:
    # Wang et al. 2024: the truncated SVD of W·S, taken back by S⁻¹, where S·Sᵀ = C (Cholesky).
    W, C = normal(6, 8), second_moment(inputs(200, 8))
    S = torch.linalg.cholesky(C)
    U, s, V = torch.linalg.svd(W @ S, full_matrices=False)
    expected = (U[:, :rank] * s[:rank]) @ V[:rank] @ torch.linalg.inv(S)
    torch.testing.assert_close(cut(W, C, rank), expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(output_basis(W, C).values, s, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 2, 4])
def test_inputs_that_never_occur_cost_nothing(rank: int) -> None:
    W, C = normal(5, 7), torch.zeros(7, 7, dtype=torch.float64)
    C[2, 2] = 4.0  # one input alone: rank one is enough for the outputs
    error = output_error(W, cut(W, C, rank), C)
    assert error == pytest.approx(0 if rank else 4 * float(W[:, 2].square().sum()), abs=1e-9)
    basis = output_basis(W, torch.zeros(7, 7))
    assert basis.values.tolist() == [0.0] * 5
    torch.testing.assert_close(basis.left @ basis.projected, W)


def test_where_outputs_are_all_alike_the_weight_decides() -> None:
    W = normal(5, 7)
    U, s, V = torch.linalg.svd(W, full_matrices=False)
    basis = output_basis(W, torch.zeros(7, 7))
    for rank in range(1, 6):
        plain = (U[:, :rank] * s[:rank]) @ V[:rank]
        torch.testing.assert_close(basis.left[:, :rank] @ basis.projected[:rank], plain)


# ---- the best last factor --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_the_outer_fit_is_that_of_least_squares_on_the_samples(out: int, size: int, width: int, seed: int) -> None:
    width = min(width, size)
    W, P, X = normal(out, size, seed=seed), normal(size, width, seed=seed + 1), normal(60, size, seed=seed + 2)
    X = X + 0.5 * X.sum(1, keepdim=True)
    solution, *_ = np.linalg.lstsq((X @ P).numpy(), (X @ W.T).numpy(), rcond=None)
    found = outer_fit(outer_fits(W, P, second_moment(X)), width)
    # The ridge alone lies between the two: its effect is that on the smallest eigenvalue.
    C = second_moment(X)
    allowed = 10 * RIDGE * float(C.diagonal().mean() * P.square().sum() / torch.linalg.eigvalsh(P.T @ C @ P)[0])
    np.testing.assert_allclose(found.numpy(), solution.T, rtol=0, atol=allowed * (1 + np.abs(solution).max()) + 1e-9)


def test_a_prefix_of_the_outer_fit_equals_solving_anew() -> None:
    W, P, C = normal(5, 9), normal(9, 6, seed=1), second_moment(inputs(50, 9))
    fits = outer_fits(W, P, C)
    ridged = C + RIDGE * float(C.diagonal().mean()) * torch.eye(9, dtype=torch.float64)
    for width in range(1, 7):
        some = P[:, :width]
        anew = torch.linalg.solve(some.T @ ridged @ some, some.T @ ridged @ W.T).T
        torch.testing.assert_close(outer_fit(fits, width), anew, rtol=1e-6, atol=1e-9)


def test_seen_outputs_tell_the_error_without_the_weight() -> None:
    W, P, C = normal(5, 9), normal(9, 6, seed=1), second_moment(inputs(500, 9))
    fits, total = outer_fits(W, P, C), output_error(W, torch.zeros_like(W), C)
    errors = []
    for width in range(1, 7):
        error = output_error(W, outer_fit(fits, width) @ P[:, :width].T, C)
        assert error == pytest.approx(total - float(seen_outputs(fits, width).square().sum()), abs=1e-4 * total)
        errors.append(error)
    assert errors == sorted(errors, reverse=True)


def test_the_fit_for_a_frame_is_the_projection_and_the_leading_frame_is_best() -> None:
    W, P, C = normal(6, 9), normal(9, 5, seed=1), second_moment(inputs(500, 9))
    fits = outer_fits(W, P, C)
    Z = seen_outputs(fits, 5)
    leading = torch.linalg.svd(Z).U[:, :2]
    frames = [leading, *(torch.linalg.qr(normal(6, 2, seed=seed)).Q for seed in range(20))]
    for frame in frames:
        torch.testing.assert_close(outer_fit(fits, 5, frame), frame.T @ outer_fit(fits, 5))
    errors = [output_error(W, frame @ outer_fit(fits, 5, frame) @ P.T, C) for frame in frames]
    assert errors[0] == min(errors)


def test_of_inputs_that_never_occur_the_weight_decides() -> None:
    W, P = normal(5, 9), torch.linalg.qr(normal(9, 9, seed=1)).Q
    dead = second_moment(inputs(50, 9)).clone()
    dead[[2, 5]] = dead[:, [2, 5]] = 0
    for moment in (dead, torch.zeros(9, 9)):
        torch.testing.assert_close(outer_fit(outer_fits(W, P, moment), 9) @ P.T, W, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_fewer_samples_than_inputs_give_finite_factors(samples: int) -> None:
    C = second_moment(normal(samples, 9)) if samples else torch.zeros(9, 9)
    fits = outer_fits(normal(5, 9), normal(9, 6, seed=1), C)
    for width in range(1, 7):
        assert outer_fit(fits, width).isfinite().all()
    assert outer_fit(outer_fits(normal(5, 9), torch.zeros(9, 3), C), 3).eq(0).all()


# ---- the span of an inner factor -------------------------------------------------------------------------


def test_the_root_of_a_matrix_times_itself_is_the_matrix() -> None:
    for moment in (second_moment(inputs(50, 6)), second_moment(normal(2, 6)), torch.zeros(6, 6)):
        found = root(moment)
        torch.testing.assert_close(found @ found, moment.double(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found, found.T)
        assert torch.linalg.eigvalsh(found).min() > -1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 30), st.integers(0, 1000))
def test_a_nested_span_is_orthonormal_and_complete(rows: int, columns: int, samples: int, seed: int) -> None:
    span = nested_span(normal(rows, columns, seed=seed), second_moment(inputs(samples, rows, seed)))
    torch.testing.assert_close(span.T @ span, torch.eye(rows, dtype=torch.float64), rtol=0, atol=1e-9)


def spanned_error(Y: Tensor, M: Tensor, P: Tensor) -> float:
    """How far the outputs Yᵀx are off, x with second moment M, if only Pᵀx is seen of x: least squares."""
    A = torch.linalg.solve(P.T @ M @ P, P.T @ M @ Y)
    return output_error(Y.T, (P @ A).T, M)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000), st.integers(0, 1000))
def test_the_first_columns_of_a_span_are_the_best_for_a_product_metric(rank: int, seed: int, rival: int) -> None:
    # W (out × in·pixels), C = A ⊗ B: its mode-1 unfolding, weighed by B^½ in the other modes, has the metric A alone.
    A, B = second_moment(inputs(40, 5, seed)), second_moment(normal(40, 3, seed=seed + 3))
    W = normal(4, 5, 3, seed=seed)
    Y = torch.einsum("oip,pq->ioq", W, root(B)).flatten(1)
    span = nested_span(Y, A)
    best = spanned_error(Y, A, span[:, :rank])
    tail = float(torch.linalg.svdvals(root(A) @ Y)[rank:].square().sum())
    total = output_error(Y.T, torch.zeros_like(Y.T), A)
    assert best == pytest.approx(tail, abs=1e-4 * total)
    assert best <= spanned_error(Y, A, normal(5, rank, seed=rival)) + 1e-4 * total
    assert total == pytest.approx(output_error(W.flatten(1), torch.zeros(4, 15), torch.kron(A, B)), rel=1e-6)


def test_a_span_knows_neither_scale_nor_the_other_modes_order() -> None:
    Y, M = normal(5, 8), second_moment(inputs(60, 5))
    span = nested_span(Y, M)
    turned = torch.linalg.qr(normal(8, 8, seed=3)).Q
    for other in (nested_span(7 * Y, M), nested_span(Y, 7 * M), nested_span(Y @ turned, M)):
        for rank in range(1, 6):
            ours, theirs = span[:, :rank], other[:, :rank]
            torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, rtol=0, atol=1e-6)


class Fitted:
    """A form whose two fits are given."""

    def __init__(self, plain: float, seen: float) -> None:
        self.fits, self.now = {"plain": plain, "seen": seen}, math.nan

    def plain(self, weight: Tensor, bases: Any) -> None:
        self.now = self.fits["plain"]

    def seen(self, weight: Tensor, bases: Any, moment: Tensor) -> None:
        self.now = self.fits["seen"]

    def dense(self) -> Tensor:
        return torch.full((1, 1), self.now)


@pytest.mark.parametrize(
    ("plain", "seen", "moment", "kept"),
    [
        (3.0, 2.0, 1.0, 2.0),
        (2.0, 3.0, 1.0, 2.0),
        (1.5, 0.5, 1.0, 1.5),
        (3.0, math.nan, 1.0, 3.0),
        (3.0, 2.0, None, 3.0),
    ],
    ids=["seen is closer", "plain is closer", "as far", "seen is nothing", "no moment"],
)
def test_the_closer_fit_is_kept(plain: float, seen: float, moment: float | None, kept: float) -> None:
    form: Any = Fitted(plain, seen)
    known: Any = SimpleNamespace(moment=None if moment is None else torch.full((1, 1), moment))
    fit_closer(form, torch.ones(1, 1), known, form.plain, form.seen)
    assert form.now == kept


@pytest.mark.parametrize("n", [8, 72, 300])
@pytest.mark.parametrize("spread", [0.0, 1e-5, 1e-3])
def test_outer_fits_of_inputs_that_hardly_vary_beside_their_mean(n: int, spread: float) -> None:
    torch.manual_seed(n)
    x = 5 * torch.rand(n) + spread * torch.randn(400, n)
    moment, weight = x.T @ x / 400, torch.randn(6, n)
    fits = outer_fits(weight, torch.eye(n), moment)
    found = outer_fit(fits, n).to(weight.dtype)
    assert output_error(weight, found, moment) <= 1e-4 * output_error(weight, torch.zeros_like(weight), moment)


@pytest.mark.parametrize("n", [8, 64, 300])
def test_a_span_of_inputs_that_do_not_vary_is_finite_and_orthonormal(n: int) -> None:
    torch.manual_seed(n)
    x = 5 * torch.rand(n).expand(400, n)
    span = nested_span(torch.randn(n, 2 * n), x.T @ x / 400)
    torch.testing.assert_close(span.T @ span, torch.eye(n, dtype=span.dtype), rtol=0, atol=1e-6)
