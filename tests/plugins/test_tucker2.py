"""Tucker-2: the laws, the bounds of the truncated higher-order SVD, planted ranks, HOOI as the oracle."""

from __future__ import annotations

import pytest
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_search_plugins.tucker2 import Tucker2, in_unfolding, out_unfolding
from tensorly.decomposition import partial_tucker
from torch import Tensor

from rank_search.layers import DirectBases, Layer
from rank_search.testing import FactorizationLaws


class TestLaws(FactorizationLaws):
    factorization = Tucker2


def fitted(weight: Tensor, rank_out: int, rank_in: int) -> Tucker2:
    layer = Layer("x", "conv2d", tuple(weight.shape), dtype=weight.dtype)
    tucker = Tucker2(layer, rank_out=rank_out, rank_in=rank_in)
    tucker.fit(weight, DirectBases(weight))
    return tucker


def distance(weight: Tensor, tucker: Tucker2) -> float:
    return float((weight - tucker.dense().detach()).norm())


def planted(out: int, inner: int, rank_out: int, rank_in: int) -> Tensor:
    core = torch.randn(rank_out, rank_in, 3, 3, dtype=torch.float64)
    left, right = (torch.randn(*shape, dtype=torch.float64) for shape in ((out, rank_out), (inner, rank_in)))
    return torch.einsum("oa,abyx,ib->oiyx", left, core, right)


@pytest.mark.parametrize(
    "layer", [Layer("x", "linear", (5, 4)), Layer("x", "conv2d", (5, 4, 1, 1), padding=((1, 1), (1, 1)))]
)
def test_tucker2_leaves_matrices_to_the_svd(layer: Layer) -> None:
    assert Tucker2.axes(layer) == ()


@pytest.mark.parametrize(("shape", "full"), [((8, 6, 3, 3), (8, 6)), ((20, 2, 3, 3), (18, 2)), ((1, 12, 1, 3), (1, 3))])
def test_tucker2_of_full_rank_is_the_weight_itself(shape: tuple[int, ...], full: tuple[int, int]) -> None:
    axes = Tucker2.axes(Layer("x", "conv2d", shape))
    assert tuple(axis.high for axis in axes) == full
    weight = torch.randn(*shape, dtype=torch.float64)
    torch.testing.assert_close(fitted(weight, *full).dense(), weight)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6))
def test_tucker2_error_is_between_the_larger_tail_and_both(rank_out: int, rank_in: int) -> None:
    weight = torch.randn(8, 6, 3, 3, dtype=torch.float64)
    tails = [
        float(torch.linalg.svdvals(unfolding(weight))[rank:].norm())
        for unfolding, rank in ((out_unfolding, rank_out), (in_unfolding, rank_in))
    ]
    error = distance(weight, fitted(weight, rank_out, rank_in))
    assert max(tails) - 1e-9 <= error <= (tails[0] ** 2 + tails[1] ** 2) ** 0.5 + 1e-9


def test_tucker2_core_norm_and_error_add_up_to_the_weight() -> None:
    weight = torch.randn(8, 6, 3, 3, dtype=torch.float64)
    tucker = fitted(weight, 5, 3)
    lost = weight.norm() ** 2 - tucker.core.detach().norm() ** 2
    assert distance(weight, tucker) ** 2 == pytest.approx(float(lost))


def test_tucker2_of_planted_ranks_is_exact() -> None:
    weight = planted(12, 10, 4, 3)
    assert distance(weight, fitted(weight, 4, 3)) < 1e-10 * float(weight.norm())
    assert distance(weight, fitted(weight, 3, 3)) > 1e-3 * float(weight.norm())


def test_tucker2_frames_are_both_matrices_and_orthonormal() -> None:
    tucker = fitted(torch.randn(8, 6, 3, 3, dtype=torch.float64), 5, 4)
    outer, inner = tucker.frames()
    for frame, shape in ((outer, (8, 5)), (inner, (6, 4))):
        assert frame.shape == shape
        torch.testing.assert_close(frame.T @ frame, torch.eye(shape[1], dtype=torch.float64))


@pytest.mark.parametrize("ranks", [(4, 4), (8, 12), (16, 16)])
def test_tucker2_is_hardly_worse_than_alternating_least_squares(ranks: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    core = torch.randn(32, 24, 3, 3, generator=generator, dtype=torch.float64)
    decay = torch.arange(1, 33, dtype=torch.float64) ** -0.7
    weight = core * decay[:, None, None, None] * decay[:24, None, None]
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        (core, factors), _ = partial_tucker(weight, rank=ranks, modes=[0, 1])
        best = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    assert distance(weight, fitted(weight, *ranks)) <= 1.02 * float((weight - best).norm())
