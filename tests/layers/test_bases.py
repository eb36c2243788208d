"""A basis gives the best approximation of every rank as a slice; bases are computed once."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rank_search.errors import ContractError
from rank_search.layers import DirectBases, bases, decompose, metric, output_basis


def matrix(rows: int, columns: int, rank: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return left @ torch.randn(rank, columns, generator=generator, dtype=torch.float64)


def identity_error(frame: Tensor) -> float:
    return float((frame.T @ frame - torch.eye(frame.shape[1], dtype=frame.dtype)).abs().max())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.integers(0, 1000))
def test_decompose_is_a_singular_value_decomposition(rows: int, columns: int, rank: int, seed: int) -> None:
    given_matrix = matrix(rows, columns, rank, seed)
    basis, full = decompose(given_matrix), min(rows, columns)
    expected = torch.linalg.svdvals(given_matrix)
    assert basis.left.shape == (rows, full)
    assert basis.projected.shape == (full, columns)
    torch.testing.assert_close(basis.values, expected, rtol=1e-6, atol=1e-6)
    assert identity_error(basis.left) < 1e-9
    torch.testing.assert_close(basis.left @ basis.projected, given_matrix, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(basis.projected @ basis.projected.T, torch.diag(basis.values**2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(6, 20), (20, 6), (9, 9), (1, 5), (5, 1)])
def test_every_slice_is_the_best_of_its_rank(rows: int, columns: int) -> None:
    given_matrix = matrix(rows, columns, min(rows, columns))
    basis, values = decompose(given_matrix), torch.linalg.svdvals(given_matrix)
    for rank in range(min(rows, columns) + 1):
        error = torch.linalg.matrix_norm(given_matrix - basis.left[:, :rank] @ basis.projected[:rank])
        tail = torch.linalg.vector_norm(values[rank:])
        torch.testing.assert_close(error, tail, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(4, 7), (7, 4)])
def test_a_matrix_of_zeros_has_a_basis(rows: int, columns: int) -> None:
    basis = decompose(torch.zeros(rows, columns))
    assert identity_error(basis.left) < 1e-6
    assert basis.values.tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_decompose_keeps_the_dtype_and_its_argument(dtype: torch.dtype) -> None:
    given_matrix = matrix(5, 8, 5).to(dtype).requires_grad_()
    before = given_matrix.detach().clone()
    basis = decompose(given_matrix)
    assert {basis.left.dtype, basis.values.dtype, basis.projected.dtype} == {dtype}
    assert not basis.left.requires_grad
    assert torch.equal(given_matrix.detach(), before)


def test_single_precision_is_not_lost_in_the_gram_matrix() -> None:
    # s from 1 to 1e-6: a Gram matrix in float32 would drown everything below 3e-4.
    left, right = (torch.linalg.qr(matrix(n, 7, 7, n)).Q for n in (7, 30))
    values = torch.logspace(0, -6, 7, dtype=torch.float64)
    found = decompose((left * values @ right.T).to(torch.float32)).values.to(torch.float64)
    torch.testing.assert_close(found, values, rtol=2e-2, atol=0)


class Counted:
    """An unfolding that counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight.flatten(1)


def test_direct_bases_decompose_once_per_unfolding() -> None:
    weight, unfolding = torch.randn(4, 3, 2, 2), Counted()
    direct = DirectBases(weight)
    first = direct(unfolding)
    assert direct(unfolding) is first
    assert unfolding.calls == 1
    torch.testing.assert_close(first.left @ first.projected, weight.flatten(1))


def test_an_unfolding_that_makes_no_matrix_is_refused() -> None:
    with pytest.raises(ContractError, match=r"returned a tensor of shape \[4, 3, 4\]"):
        DirectBases(torch.randn(4, 3, 2, 2))(partial(torch.flatten, start_dim=2))


def test_memo_computes_once_per_key() -> None:
    direct, made = DirectBases(torch.randn(3, 3)), []

    def compute() -> Tensor:
        made.append(torch.randn(2))
        return made[-1]

    assert direct.memo("core", compute) is direct.memo("core", compute)
    assert direct.memo("other", compute) is made[1]
    assert len(made) == 2


@pytest.mark.parametrize("inputs", [3, 9, 12, 40])
def test_a_basis_of_many_outputs_is_the_best_of_every_rank(inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the outputs as far as inputs tell them apart, and then for what is left of the weight."""
    weight, X = matrix(13, 12, 12), matrix(inputs, 12, 12, seed=1)
    moment = X.T @ X / inputs
    monkeypatch.setattr(bases, "WIDE", 8)
    monkeypatch.setattr(metric, "WIDE", 6)
    monkeypatch.setattr(metric, "_BLOCK", 5)
    basis = output_basis(weight, moment)
    seen = torch.linalg.svdvals(weight @ X.T / inputs**0.5)[:12]
    torch.testing.assert_close(basis.values[: len(seen)], seen, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(basis.left.T @ basis.left, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(basis.projected, basis.left.T @ weight, rtol=0, atol=1e-12)
    told = torch.linalg.qr(weight @ X.T).Q
    rest = torch.linalg.svdvals(weight - told @ (told.T @ weight)).square()
    for rank in range(1, 13):
        left = weight - basis.left[:, :rank] @ basis.projected[:rank]
        error = float((left @ moment * left).sum())
        assert error <= float(seen[rank:].square().sum()) + 1e-9 * float(seen[0]) ** 2
        if rank >= inputs:
            assert float(left.square().sum()) <= 1.001 * float(rest[rank - inputs :].sum()) + 1e-9


def test_a_basis_of_many_outputs_without_inputs_is_that_of_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrix(13, 12, 12)
    monkeypatch.setattr(bases, "WIDE", 8)
    found, plain = output_basis(weight, torch.zeros(12, 12)), decompose(weight)
    assert found.values.abs().max() == 0
    torch.testing.assert_close(
        found.left[:, :5] @ found.projected[:5], plain.left[:, :5] @ plain.projected[:5], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(("rows", "columns"), [(30, 50), (50, 30), (40, 40)])
def test_large_matrices_are_decomposed_in_float32(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "WIDE", 30)
    exact = matrix(rows, columns, 60).to(torch.float32)
    basis = decompose(exact)
    values = torch.linalg.svdvals(exact.double())
    assert basis.left.dtype == torch.float32
    assert identity_error(basis.left) < 1e-5
    for rank in range(len(values)):
        kept = basis.left[:, :rank].double() @ basis.projected[:rank].double()
        best = float(values[rank:].square().sum())
        error = float((exact.double() - kept).square().sum())
        assert error <= best * (1 + 1e-5) + 1e-9 * float(values[0]) ** 2
    half = decompose(exact.to(torch.float16))
    assert (half.left.dtype, half.values.dtype, half.projected.dtype) == (torch.float16,) * 3
