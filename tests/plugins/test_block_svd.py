"""Block-wise SVD: the laws, planted blocks, and how close it comes to the outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rank_search_plugins import block_svd
from rank_search_plugins.block_svd import BlockSVD, EightBlocks, FourBlocks, SixteenBlocks
from torch import Tensor, nn

from rank_search.layers import DirectBases, Layer, count_params, output_error
from rank_search.layers.costs import count_macs
from rank_search.testing import FactorizationLaws
from tests.plugins.fit_oracles import check_full_ranks, descended, moment, normal

LINEAR = Layer("x", "linear", (12, 16), dtype=torch.float64, inputs=((3, 5, 16),))
CONV = Layer("x", "conv2d", (10, 8, 3, 3), padding=((1, 1), (1, 1)), dtype=torch.float64, inputs=((2, 8, 6, 5),))


class TestFourBlocks(FactorizationLaws):
    factorization = FourBlocks


class TestSixteenBlocks(FactorizationLaws):
    factorization = SixteenBlocks
    layers = (replace(LINEAR, name="wide"),)


def fitted(form: BlockSVD, weight: Tensor, bases: DirectBases | None = None) -> BlockSVD:
    form.fit(weight, bases or DirectBases(weight))
    return form


@pytest.mark.parametrize(
    ("channels", "blocks"), [(64, (4, 8, 16)), (6, (3, 6, 6)), (12, (4, 6, 12)), (7, (1, 7, 7)), (22, (2, 2, 11))]
)
def test_channels_are_cut_into_equal_blocks(channels: int, blocks: tuple[int, ...]) -> None:
    layer = Layer("x", "linear", (9, channels))
    forms = (FourBlocks, EightBlocks, SixteenBlocks)
    assert tuple(form(layer, rank=1).blocks for form in forms) == blocks


@pytest.mark.parametrize(
    "layer",
    [
        Layer("x", "conv2d", (6, 3, 3, 3), groups=2),
        Layer("x", "conv2d", (6, 1, 3, 3)),
        Layer("x", "embedding", (8, 100)),
    ],
)
def test_it_does_not_apply_to_groups_single_channels_and_tables(layer: Layer) -> None:
    assert FourBlocks.axes(layer) == ()


@pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])
def test_costs_are_those_of_a_grouped_layer_and_a_mixing(layer: Layer) -> None:
    form, x = FourBlocks(layer, rank=2), torch.zeros(layer.inputs[0], dtype=torch.float64)
    positions = 15 if layer is LINEAR else 2 * 30
    columns = layer.in_features * (1 if layer is LINEAR else 9)
    numbers = 2 * (columns + 4 * layer.out_features)
    assert count_params(form) == numbers + layer.out_features
    assert count_macs(form, [x]) == numbers * positions


@pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])
def test_a_fit_to_the_weight_cuts_each_block_by_its_own_svd(layer: Layer) -> None:
    weight = normal(*layer.shape)
    form = fitted(FourBlocks(layer, rank=2), weight)
    blocks = zip(form.dense().chunk(4, 1), weight.chunk(4, 1), strict=True)
    for found, wanted in blocks:
        U, s, Vh = torch.linalg.svd(wanted.flatten(1), full_matrices=False)
        torch.testing.assert_close(found.flatten(1), (U[:, :2] * s[:2]) @ Vh[:2])


@pytest.mark.parametrize("known", ["nothing", "inputs"])
@pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])
def test_planted_blocks_are_found_with_orthonormal_frames(layer: Layer, known: str) -> None:
    columns = layer.in_features * (1 if layer is LINEAR else 9)
    weight = torch.cat(
        [normal(layer.out_features, 2, seed=g) @ normal(2, columns // 4, seed=9 + g) for g in range(4)], 1
    )
    weight = weight.view(layer.shape)
    form = fitted(
        FourBlocks(layer, rank=2), weight, DirectBases(weight, None if known == "nothing" else moment(columns))
    )
    torch.testing.assert_close(form.dense(), weight, rtol=1e-3, atol=1e-3)
    for frame in form.frames():
        torch.testing.assert_close(frame.T @ frame, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])
def test_it_goes_where_gradient_descent_gets(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle: both factors moved together, from the fit on. As many sweeps as there are come most of the way."""
    weight = normal(*layer.shape)
    C = moment(weight[0].numel())
    found = []
    for sweeps in (block_svd.SWEEPS, 60):
        monkeypatch.setattr(block_svd, "SWEEPS", sweeps)
        form = fitted(FourBlocks(layer, rank=2), weight, DirectBases(weight, C))
        found.append(output_error(weight, form.dense(), C))
    least = descended(form, weight, C)
    assert found[1] <= 1.05 * least
    assert found[0] <= 1.2 * least


def test_solving_block_after_block_comes_closer_than_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(*CONV.shape)
    C = moment(72)
    solved = output_error(weight, fitted(FourBlocks(CONV, rank=2), weight, DirectBases(weight, C)).dense(), C)
    monkeypatch.setattr(block_svd, "SOLVED", 71)
    closed = output_error(weight, fitted(FourBlocks(CONV, rank=2), weight, DirectBases(weight, C)).dense(), C)
    plain = output_error(weight, fitted(FourBlocks(CONV, rank=2), weight).dense(), C)
    assert solved < 0.99 * closed < 0.9 * plain


def test_each_rank_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(*CONV.shape)
    bases = DirectBases(weight, moment(72))
    first = fitted(EightBlocks(CONV, rank=2), weight, bases).dense()
    monkeypatch.setattr(block_svd, "closer_to_outputs", None)
    assert torch.equal(fitted(EightBlocks(CONV, rank=2), weight, bases).dense(), first)
    with pytest.raises(TypeError):
        fitted(EightBlocks(CONV, rank=3), weight, bases)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(8, 6, 3, 2, padding=1),
        nn.Conv1d(8, 6, 5),
        nn.Conv3d(4, 6, 2),
        nn.ConvTranspose2d(8, 6, 4, 2, padding=1),
    ],
    ids=str,
)
def test_at_full_rank_it_is_the_layer_for_batches_single_examples_and_either_memory_format(module: nn.Module) -> None:
    check_full_ranks(FourBlocks, module)
