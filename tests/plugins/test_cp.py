"""CP: the laws, planted components, degeneracy, and what the alternating least squares is held to."""

from __future__ import annotations

import pytest
import tensorly
import torch
from rank_search_plugins.cp import CP, balanced, leading_start
from tensorly.decomposition import parafac
from torch import Tensor

from rank_search.layers import DirectBases, Layer
from rank_search.testing import FactorizationLaws


class TestLaws(FactorizationLaws):
    factorization = CP


def fitted(weight: Tensor, rank: int, bases: DirectBases | None = None) -> CP:
    module = CP(Layer("x", "conv2d", tuple(weight.shape), dtype=weight.dtype), rank=rank)
    module.fit(weight, bases or DirectBases(weight))
    return module


def relative_error(weight: Tensor, module: CP) -> float:
    return float((weight - module.dense().detach()).norm() / weight.norm())


def combined(out: Tensor, inner: Tensor, space: Tensor, rows: int = 3) -> Tensor:
    return torch.einsum("or,ir,sr->ois", out, inner, space).unflatten(2, (rows, -1))


def planted(rank: int, shape: tuple[int, int, int, int] = (12, 10, 3, 3), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = (shape[0], shape[1], shape[2] * shape[3])
    factors = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in sizes)
    return combined(*factors, rows=shape[2])


def decaying(out: int, inner: int) -> Tensor:
    """Like a trained kernel: energies of the components fall like 1/r, over a floor of noise."""
    parts = [planted(1, (out, inner, 3, 3), seed=r) / (r + 1) for r in range(2 * out)]
    weight = torch.stack(parts).sum(0)
    return weight + 0.1 * weight.std() * torch.randn(
        weight.shape, generator=torch.Generator().manual_seed(3), dtype=weight.dtype
    )


@pytest.mark.parametrize("layer", [Layer("x", "linear", (5, 4)), Layer("x", "conv2d", (5, 4, 1, 1), stride=(2, 2))])
def test_cp_leaves_matrices_to_the_svd(layer: Layer) -> None:
    assert CP.axes(layer) == ()


@pytest.mark.parametrize(
    ("shape", "high"), [((64, 64, 3, 3), 269), ((8, 6, 3, 3), 18), ((1, 1, 3, 3), 1), ((1, 12, 1, 3), 2)]
)
def test_cp_ranks_go_up_to_where_the_parameters_break_even(shape: tuple[int, ...], high: int) -> None:
    layer = Layer("x", "conv2d", shape, bias=False)
    (axis,) = CP.axes(layer)
    assert (axis.low, axis.high, len(axis.unfoldings)) == (1, high, 3)
    dense = torch.Size(shape).numel()
    for rank in (high, high + 1):
        params = sum(parameter.numel() for parameter in CP(layer, rank=rank).parameters())
        assert (params <= dense) == (rank == high) or high == 1


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_cp_finds_planted_components(rank: int, seed: int) -> None:
    weight = planted(rank, seed=seed)
    assert relative_error(weight, fitted(weight, rank)) < 0.02


def test_cp_of_rank_one_is_exact() -> None:
    weight = planted(1)
    assert relative_error(weight, fitted(weight, 1)) < 1e-5


@pytest.mark.parametrize("rank", [4, 16, 40])
def test_cp_is_hardly_worse_than_twice_as_many_sweeps_from_random_starts(rank: int) -> None:
    weight = decaying(24, 16)
    errors = []
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        for seed in range(2):
            _, factors = parafac(weight.flatten(2), rank, n_iter_max=100, init="random", random_state=seed)
            errors.append(float((weight - combined(*factors)).norm() / weight.norm()))
    assert relative_error(weight, fitted(weight, rank)) <= 1.05 * min(errors)


def test_cp_error_falls_with_the_rank() -> None:
    weight = decaying(16, 12)
    bases = DirectBases(weight)
    errors = [relative_error(weight, fitted(weight, rank, bases)) for rank in (1, 2, 4, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_cp_start_is_near_unit_vectors_and_always_the_same() -> None:
    core = torch.randn(6, 5, 4, dtype=torch.float64)
    for factor, size in zip(leading_start(core, 5), core.shape, strict=True):
        assert factor.shape == (size, 5)
        assert torch.linalg.matrix_rank(factor) == min(size, 5)
        assert float((factor[:, :4] - torch.eye(size, 4, dtype=torch.float64)).norm(dim=0).max()) < 0.3
    first, again = leading_start(core, 9), leading_start(core, 9)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


def test_cp_of_a_tensor_without_a_best_approximation_does_not_diverge() -> None:
    # a∘a∘b + a∘b∘a + b∘a∘a has rank three, and rank-two tensors come as close as one likes, but
    # only with two components that grow without end and cancel (De Silva and Lim, 2008).
    a, b = torch.eye(4, dtype=torch.float64)[:2]
    terms = [torch.einsum("o,i,s->ois", *vectors) for vectors in ((a, a, b), (a, b, a), (b, a, a))]
    weight = torch.stack(terms).sum(0).view(4, 4, 2, 2)
    module = fitted(weight, 2)
    assert relative_error(weight, module) < 0.3
    assert max(float(parameter.detach().abs().max()) for parameter in (module.outer, module.inner, module.space)) < 10


def test_cp_components_share_their_norm_evenly() -> None:
    module = fitted(decaying(12, 8), 6)
    norms = torch.stack([factor.detach().norm(dim=0) for factor in (module.outer, module.inner, module.space)])
    torch.testing.assert_close(norms, norms[:1].expand(3, -1))


def test_balancing_keeps_the_sum_and_the_zeros() -> None:
    a, b, c = (torch.randn(n, 3, dtype=torch.float64) for n in (5, 4, 9))
    b[:, 1] = 0
    even = balanced((a, b, c))
    torch.testing.assert_close(combined(*even), combined(a, b, c))
    assert all(factor[:, 1].eq(0).all() for factor in even)


def test_cp_solves_each_rank_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = planted(3)
    bases = DirectBases(weight)
    first = fitted(weight, 5, bases)
    monkeypatch.setattr("rank_search_plugins.cp.parafac", None)
    assert torch.equal(fitted(weight, 5, bases).dense(), first.dense())
    with pytest.raises(TypeError):
        fitted(weight, 6, bases)


def test_cp_fit_is_deterministic_and_leaves_no_backend_behind() -> None:
    weight, backend = decaying(16, 12), tensorly.get_backend()
    torch.manual_seed(1)
    first = fitted(weight, 9)
    torch.manual_seed(2)
    assert torch.equal(fitted(weight, 9).dense(), first.dense())
    assert tensorly.get_backend() == backend


def test_cp_of_single_precision_is_solved_in_double() -> None:
    weight = decaying(16, 12)
    single = fitted(weight.float(), 9)
    assert single.dense().dtype == torch.float32
    torch.testing.assert_close(single.dense().double(), fitted(weight, 9).dense(), atol=1e-3, rtol=1e-3)
