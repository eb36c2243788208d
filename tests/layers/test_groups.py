"""Grouped convolutions: each block is what a convolution of its own would be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rank_search_plugins.svd import ChannelSVD
from rank_search_plugins.svd import matrix as by_output
from rank_search_plugins.svd_spatial import SpatialSVD
from rank_search_plugins.svd_spatial import matrix as by_rows
from torch import Tensor, nn

from rank_search.layers import (
    Axis,
    DirectBases,
    Factorization,
    Layer,
    axes_of,
    fit_to,
    groups_of,
    output_error,
    weight_of,
)
from rank_search.priors import SpectraCache
from rank_search.priors.spectrum import Spectrum

GROUPS = 3
DENSE = nn.Conv2d(6, 12, 3, padding=1, groups=GROUPS, dtype=torch.float64)
LAYER = Layer.of(DENSE, "x")
PART = Layer.of(nn.Conv2d(2, 4, 3, padding=1, dtype=torch.float64), "x")
N = 2 * 9


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, seed: int) -> Tensor:
    X = normal(5 * size, size, seed=seed).relu() * torch.logspace(0, -2, size, dtype=torch.float64)
    return X.T @ X / len(X)


W = normal(*LAYER.shape, seed=0)
C = torch.stack([moment(N, seed) for seed in range(GROUPS)])
G = moment(12, 7)


def fitted(plugin: type[Factorization], layer: Layer, weight: Tensor, bases: DirectBases) -> Factorization:
    form = plugin(layer, rank=2)
    fit_to(form, weight, bases)
    return form


@pytest.mark.parametrize("plugin", [ChannelSVD, SpatialSVD])
@pytest.mark.parametrize("known", [False, True])
def test_blocks_are_fitted_as_convolutions_of_their_own(plugin: type[Factorization], known: bool) -> None:
    found = fitted(plugin, LAYER, W, DirectBases(W, C if known else None, groups=GROUPS)).dense()
    parts = [
        fitted(plugin, PART, weight, DirectBases(weight, seen if known else None)).dense()
        for weight, seen in zip(W.chunk(GROUPS), C, strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(parts))


def spread(weight: Tensor) -> Tensor:
    """The matrix of the same outputs and all inputs: zeros beside the blocks."""
    return torch.block_diag(*weight.flatten(1).chunk(GROUPS))


def test_output_errors_are_those_of_the_matrix_with_zeros_beside_the_blocks() -> None:
    other = normal(*LAYER.shape, seed=1)
    wide = torch.block_diag(*C)
    assert output_error(W, other, C) == pytest.approx(output_error(spread(W), spread(other), wide))


@pytest.mark.parametrize("plugin", [ChannelSVD, SpatialSVD])
def test_fits_know_the_loss_by_the_gradients_of_each_block(plugin: type[Factorization]) -> None:
    own = torch.block_diag(*(G[at : at + 4, at : at + 4] for at in (0, 4, 8)))
    bases = DirectBases(W, C, G, groups=GROUPS)
    assert bases.weighed is not None
    twin = DirectBases(spread(W), torch.block_diag(*C), own).weighed
    assert twin is not None
    form = fitted(plugin, LAYER, W, bases)
    error = bases.weighed.error(W, form.dense())
    assert error == pytest.approx(twin.error(spread(W), spread(form.dense())))
    assert error < bases.weighed.error(W, fitted(plugin, LAYER, W, DirectBases(W, C, groups=GROUPS)).dense())


@pytest.mark.parametrize("unfolding", [by_output, by_rows])
def test_the_tails_of_a_spectrum_are_those_of_the_blocks_together(unfolding: object) -> None:
    cached = SpectraCache().bases("x", W, C, groups=GROUPS)
    found = cached.spectrum(unfolding)  # type: ignore[arg-type]
    values = torch.stack([torch.linalg.svdvals(unfolding(block)) for block in W.chunk(GROUPS)])  # type: ignore[operator]
    squares = torch.from_numpy(found.values).square()
    torch.testing.assert_close(squares / squares.sum(), values.square().sum(0) / values.square().sum())
    assert (found.rows, found.columns) == tuple(sorted(unfolding(W[:4]).shape))  # type: ignore[operator]


def test_the_spectrum_of_the_outputs_tells_their_error() -> None:
    bases = SpectraCache().bases("x", W, C, groups=GROUPS)
    values = bases.output_spectrum(by_output).values
    error = output_error(W, fitted(ChannelSVD, LAYER, W, bases).dense(), C)  # type: ignore[arg-type]
    assert GROUPS * float((values[2:] ** 2).sum()) == pytest.approx(error, rel=1e-6)


def test_equal_blocks_have_the_spectrum_of_one_and_its_noise() -> None:
    block = normal(8, 40, seed=3)
    one, stack = Spectrum.of(block, "here"), Spectrum.of_stack(torch.stack([block] * 4), "here")
    assert (stack.rows, stack.columns) == (one.rows, one.columns)
    torch.testing.assert_close(torch.from_numpy(stack.values), torch.from_numpy(one.values))
    assert Spectrum.of_stack(torch.zeros(2, 3, 4), "here").values.size == 0


def test_bases_are_read_again_from_disk_and_differ_from_those_without_groups(tmp_path: Path) -> None:
    first = SpectraCache(tmp_path).bases("x", W, groups=GROUPS)
    again = SpectraCache(tmp_path).bases("x", W, groups=GROUPS)
    whole = SpectraCache(tmp_path).bases("x", W)
    direct = DirectBases(W, groups=GROUPS)
    for name in ("left", "values", "projected"):
        assert torch.equal(getattr(first(by_output), name), getattr(again(by_output), name))
        assert torch.equal(getattr(first(by_output), name), getattr(direct(by_output), name))
    assert len({first.key, again.key, whole.key}) == 2
    assert whole(by_output).left.shape == (12, 12)


def test_axes_end_where_a_block_has_its_full_rank() -> None:
    assert ChannelSVD.axes(LAYER) == (Axis("rank", 1, 4, (by_output,)),)
    assert SpatialSVD.axes(LAYER) == (Axis("rank", 1, 6, (by_rows,)),)
    depthwise = Layer.of(nn.Conv2d(6, 6, 3, groups=6))
    assert axes_of(ChannelSVD, depthwise) == ()
    assert SpatialSVD.axes(depthwise) == (Axis("rank", 1, 3, (by_rows,)),)
    assert SpatialSVD.axes(Layer.of(nn.Conv2d(6, 6, (1, 3), groups=6))) == ()


def test_groups_are_read_off_a_model() -> None:
    model = nn.Sequential(DENSE, nn.ReLU())
    assert (groups_of(model, "0"), groups_of(nn.Sequential(nn.Linear(2, 2)), "0")) == (GROUPS, 1)
    assert weight_of(model, "0").shape == LAYER.shape
