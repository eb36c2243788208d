"""Rounding with compensation, against brute force, rounding weight by weight, and least squares."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rank_search.quantization import rounding
from rank_search.quantization.rounding import (
    Block,
    Rate,
    cheapest,
    cost,
    pivots,
    refit,
    round_blocks,
    round_compensated,
)

drawn = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(0, 1000), st.floats(0.05, 2.0), st.floats(0, 1.0))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, seed: int = 0) -> Tensor:
    mixed = normal(4 * size, size, seed=seed) @ normal(size, size, seed=seed + 1)
    return mixed.T @ mixed / len(mixed)


def in_one(curvature: Tensor) -> Block:
    """All columns of a weight."""
    return Block(slice(0, len(curvature)), curvature, pivots(curvature))


def step(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def rate(reach: int, seed: int = 0) -> Rate:
    """Bits that are no pretty distribution's."""
    return Rate(normal(2 * reach + 1, seed=seed).abs() * 4)


@settings(max_examples=80, deadline=None)
@given(drawn)
def test_compensated_rows_are_never_worse_than_their_nearest_whole_numbers(
    given: tuple[int, int, int, float, float],
) -> None:
    out, size, seed, width, slope = given
    W, H, bits = normal(out, size, seed=seed), moment(size, seed), rate(200, seed)
    slopes = torch.full((out, 1), slope, dtype=torch.float64)
    found = round_compensated(W, step(width), H, bits, slopes, pivots(H))
    nearest = (W / width).round()
    ours, theirs = (cost(W, whole, step(width), H, bits, slopes) for whole in (found, nearest))
    assert bool((ours <= theirs * (1 + 1e-12)).all())
    assert torch.equal(found, found.round())


@settings(max_examples=60, deadline=None)
@given(drawn)
def test_compensation_under_a_diagonal_curvature_rounds_weight_by_weight(
    given: tuple[int, int, int, float, float],
) -> None:
    out, size, seed, width, slope = given
    W, H, bits = normal(out, size, seed=seed), torch.diag(normal(size, seed=seed).square() + 0.1), rate(200, seed)
    slopes = torch.full((out, 1), slope, dtype=torch.float64)
    found = round_compensated(W, step(width), H, bits, slopes, pivots(H, damping=0.0))
    alone = cheapest(W / width, slopes / (H.diagonal() * width**2), bits)
    assert torch.equal(cost(W, found, step(width), H, bits, slopes), cost(W, alone, step(width), H, bits, slopes))


@pytest.mark.parametrize("seed", range(12))
def test_compensation_comes_close_to_the_best_of_all_whole_numbers(seed: int) -> None:
    """Against every choice of three whole numbers: never below the best one, and far below the nearest on the whole."""
    W, H, bits, slopes = normal(1, 3, seed=seed), moment(3, seed), Rate.of(torch.zeros(9), 4), step(0.1)
    choices = torch.tensor([*product(range(-4, 5), repeat=3)], dtype=torch.float64)
    spread = slopes.expand(len(choices), 1)
    best = float(cost(W.expand(len(choices), 3), choices, step(0.7), H, bits, spread).min())
    found = float(cost(W, round_compensated(W, step(0.7), H, bits, slopes, pivots(H)), step(0.7), H, bits, slopes))
    assert best * (1 - 1e-12) <= found <= 2 * best


def test_compensation_is_exact_where_one_column_repeats_another() -> None:
    """Two inputs that are always the same: only the sum of their weights counts, and it comes out as near as can be."""
    same = torch.ones(2, 2, dtype=torch.float64)
    W = torch.tensor([[0.45, 0.45], [1.3, 0.4], [0.3, 0.3]], dtype=torch.float64)
    free = torch.zeros(3, 1, dtype=torch.float64)
    whole = round_compensated(W, step(1.0), same, Rate(torch.zeros(21)), free, pivots(same, damping=1e-6))
    assert whole.sum(1).tolist() == [1, 2, 1]


def test_compensation_gives_the_nearest_where_bits_are_free_and_zero_where_they_are_dear() -> None:
    W, H, flat = normal(4, 5, seed=3), torch.eye(5), Rate.of(torch.arange(-9, 10), 20)
    none, all_of_it = torch.zeros(4, 1, dtype=torch.float64), torch.full((4, 1), 1e9, dtype=torch.float64)
    assert torch.equal(round_compensated(W, step(0.5), H, flat, none, pivots(H)), (W / 0.5).round())
    zeros = Rate.of(torch.zeros(100), 20)
    assert not bool(round_compensated(W, step(0.5), H, zeros, all_of_it, pivots(H)).any())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-6, 6), min_size=1, max_size=6), st.floats(0, 5), st.integers(0, 1000))
def test_cheapest_is_never_dearer_than_the_nearest(values: list[float], weight: float, seed: int) -> None:
    exact, bits, dear = torch.tensor(values, dtype=torch.float64), rate(8, seed), torch.tensor(weight)
    chosen, nearest = cheapest(exact, dear, bits), exact.round()
    ours, theirs = ((whole - exact).square() + dear * bits(whole) for whole in (chosen, nearest))
    assert bool((ours <= theirs).all())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=50), st.integers(0, 7))
def test_rate_bits_are_those_of_a_distribution(values: list[int], reach: int) -> None:
    bits = Rate.of(torch.tensor(values, dtype=torch.float64), reach)
    assert len(bits.bits) == 2 * reach + 1
    assert bool(bits.bits.isfinite().all())
    assert float((2.0**-bits.bits).sum()) == pytest.approx(1)


def test_rate_bits_of_many_numbers_come_close_to_their_entropy() -> None:
    whole = torch.cat([torch.zeros(75_000), torch.ones(25_000)])
    entropy = -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)
    assert float(Rate.of(whole, 3)(whole).mean()) == pytest.approx(entropy, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_pivots_are_what_the_later_columns_cannot_make_up_for(size: int, seed: int) -> None:
    H = moment(size, seed) + 0.01 * torch.eye(size)
    order, U = pivots(H, damping=0.0)
    assert bool((H.diagonal()[order].diff() <= 0).all())
    placed = H[order][:, order]
    for column in range(size):
        left = placed[column, column]
        if column + 1 < size:
            later = placed[column + 1 :, column + 1 :]
            left = left - placed[column, column + 1 :] @ torch.linalg.solve(later, placed[column + 1 :, column])
        assert float(U[column, column] ** -2) == pytest.approx(float(left), rel=1e-6)


def test_compensation_with_inputs_that_never_occur_is_finite() -> None:
    H = torch.zeros(3, 3)
    H[0, 0] = 1.0
    whole = round_blocks(torch.tensor([[1.0, 1.0, 1.0]]), step(0.5), [in_one(H)], step(0.01))
    assert whole[0, 0] == 2
    flat = torch.zeros(3, 3)
    assert bool(round_blocks(torch.ones(2, 3), step(0.5), [in_one(flat)], torch.ones(2, 1)).isfinite().all())


def test_refit_is_least_squares() -> None:
    X, W = normal(200, 4, seed=1), normal(3, 4, seed=2)
    Z = X + 0.3 * normal(200, 4, seed=3)
    found = refit(W, Z.T @ Z / 200, X.T @ Z / 200, damping=0.0)
    best = torch.linalg.lstsq(Z, X @ W.T).solution.T
    assert torch.allclose(found, best)


def test_step_for_is_where_a_bit_less_costs_the_slope_on_a_fine_grid() -> None:
    """dD/dR of a uniform quantizer, D = hΔ²/12, at the factor 6/ln 2."""
    h, slope = 3.0, 0.01
    width = rounding.step_for(slope, h) * math.sqrt(6 / math.log(2) / rounding.STEP_FACTOR)
    more, less = h * (width * 2**0.01) ** 2 / 12, h * (width * 2**-0.01) ** 2 / 12
    assert (more - less) / 0.02 == pytest.approx(slope, rel=1e-3)
