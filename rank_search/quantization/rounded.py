"""The tensors of one module, put on their grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.coding import Grid
from rank_search.layers import weight_in
from rank_search.quantization.observed import Covariance, Moments
from rank_search.quantization.rounding import Block, pivots, refit, round_blocks, step_for

_SAFE: Final = 2.0**-12  # of the largest number of a row: where it is not known what a change does
_VARIES: Final = 1e-12  # of the square of inputs: what varies less says nothing of how they vary


@dataclass(frozen=True)
class Rounded:
    """What became of a layer.

    Attributes:
        grids: by the name of its parameter.
        step: of its weight, on average.
        zeros: share of its whole numbers.
        error: relative squared error of its outputs.
        predicted: relative squared error of the network's outputs that comes of it.
    """

    grids: Mapping[str, Grid]
    step: float
    zeros: float
    error: float
    predicted: float = 0.0


def round_layer_in_place(module: nn.Module, seen: Moments, felt: Float[Tensor, " out"], slope: float) -> Rounded:
    """Fit a layer to its new inputs and round it.

    Args:
        felt: what a squared error of one in each output channel does to the outputs; positive.
        slope: relative squared error of the network's outputs that a bit is worth.
    """
    weight, bias = weight_in(module), dict(module.named_parameters()).get("bias")
    before = weight.flatten(1).double() @ seen.was  # the mean of the outputs as they were: out
    fitted, blocks = _fitted(weight.flatten(1), seen, bias is not None)
    pivot = torch.cat([each.pivoted[1].diagonal() for each in blocks])
    felt_by_weight = float(felt.mean() / pivot.log().mean().mul(2).exp())
    grid = Grid.nearest(torch.full((1,) * weight.dim(), capped(step_for(slope, felt_by_weight), fitted)))
    whole = round_blocks(fitted, grid.steps().reshape(1, 1), blocks, slope / felt[:, None])
    zeros = float((whole == 0).double().mean())
    matrix = weight.flatten(1)  # out × n
    pixels = [None] * (weight.dim() - 2)
    for block in blocks:  # as of a wide layer there is no memory for more than one copy
        matrix[:, block.columns] = grid.values(whole[:, block.columns, *pixels], weight.dtype).flatten(1)
    weight.copy_(matrix.view(weight.shape))
    del whole
    grids = {"weight": grid}
    predicted = 0.0
    if bias is not None:  # it makes up for the mean of an error, so that only its variance counts
        wanted = bias.double() + before - matrix.double() @ seen.mean
        grids["bias"] = put(bias, wanted, step_for(slope, float(felt.mean())))
        predicted = float((felt * (wanted - bias.double()).square()).sum())
    lost = _squares(lambda columns: fitted[:, columns] - matrix[:, columns].double(), blocks)
    all_of_it = _squares(lambda columns: fitted[:, columns], blocks)
    error = float(lost.sum() / all_of_it.sum()) if float(all_of_it.sum()) else 0.0
    return Rounded(grids, float(grid.steps()), zeros, error, predicted + float((felt * lost).sum()))


def _fitted(W: Float[Tensor, "out n"], seen: Moments, has_bias: bool) -> tuple[Float[Tensor, "out n"], list[Block]]:
    fitted, blocks = torch.empty(W.shape, dtype=torch.float64), []
    for part in seen.blocks:
        H, cross = _curvature(part, seen, has_bias)
        fitted[:, part.columns] = refit(W[:, part.columns], H, cross)
        blocks.append(Block(part.columns, H, pivots(H)))
    return fitted, blocks


def _curvature(part: Covariance, seen: Moments, has_bias: bool) -> tuple[Float[Tensor, "b b"], Float[Tensor, "b b"]]:
    """What an error of the weights does to the layer's outputs, and the same across both networks.

    Where a bias takes the mean, that is the covariance. Of inputs that are all alike, or of a single one, it is not
    known how they vary: their mean square stands for it, for each.
    """
    was, mean = seen.was[part.columns], seen.mean[part.columns]
    if not has_bias:
        return part.seen + torch.outer(mean, mean), part.cross + torch.outer(was, mean)
    square = float(part.seen.diagonal().mean() + mean.square().mean()) if len(mean) else 0.0
    if float(part.seen.diagonal().sum()) > _VARIES * square * len(mean):
        return part.seen, part.cross
    alike = square * torch.eye(len(mean), dtype=torch.float64)
    return alike, alike


def _squares(of: Callable[[slice], Tensor], blocks: list[Block]) -> Float[Tensor, " out"]:
    """The mean square of the outputs of each row, given the weights of a block of columns."""
    return torch.stack([_square(of(each.columns), each.curvature) for each in blocks]).sum(0)


def _square(rows: Float[Tensor, "out b"], curvature: Float[Tensor, "b b"]) -> Float[Tensor, " out"]:
    return ((rows @ curvature) * rows).sum(1)


def capped(step: float, values: Tensor) -> float:
    """No more than what rounds all of the values to zero."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    return min(step, 2 * largest or 1.0)


def put(parameter: Tensor, values: Tensor, step: float) -> Grid:
    """Put the nearest multiples of a step into a parameter."""
    grid = Grid.nearest(torch.full((1,) * parameter.dim(), capped(step, values)))
    parameter.copy_(grid.values(grid.round(values), parameter.dtype))
    return grid


def is_rounded(parameter: Tensor) -> bool:
    """Whether a parameter can be put on a grid at all: complex and whole numbers are kept as they are."""
    return parameter.is_floating_point() and parameter.numel() > 0


def put_safely(parameter: Tensor) -> Grid | None:
    """Put a parameter on a grid fine enough that hardly anything can turn over: 2⁻¹² of the largest of each row.

    None for numbers of 16 bits or less: they are kept as they are.
    """
    if parameter.element_size() < 4:
        return None
    rows = parameter.shape[0] if parameter.dim() > 1 else 1
    steps = parameter.double().reshape(rows, -1).abs().amax(1) * _SAFE
    steps = torch.where(steps > 0, steps, torch.ones_like(steps))
    grid = Grid.nearest(steps.reshape(rows, *[1] * (parameter.dim() - 1)) if parameter.dim() else steps.reshape(()))
    parameter.copy_(grid.values(grid.round(parameter), parameter.dtype))
    return grid


def round_safely(module: nn.Module) -> Rounded:
    """Put a layer on safe grids, as it is."""
    weight = weight_in(module)
    before = weight.double()
    found = {key: put_safely(each) for key, each in module.named_parameters() if is_rounded(each)}
    grids = {key: grid for key, grid in found.items() if grid is not None}
    step = float(grids["weight"].steps().mean()) if "weight" in grids else 0.0
    lost, all_of_it = float((weight.double() - before).square().sum()), float(before.square().sum())
    zeros = float((weight == 0).double().mean())
    return Rounded(grids, step, zeros, lost / all_of_it if all_of_it else 0.0)
