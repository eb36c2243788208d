"""Trained weights become whole numbers: the nearest ones, or cheaper ones where the loss allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.coding import Grid
from rank_search.quantization import Quantizer, RoundingKind, batch_statistics, latents
from rank_search.tasks import Batch, Task, checked_batches, task_loss
from rank_search.training.fine_tuning import EntropyPenalty
from rank_search.training.step_grid import round_to_best_steps

_BATCHES: Final = 16
_PRICES: Final = tuple(4.0**-power for power in range(5, 12))
"""Of a bit, in units of its price in training: squared gradients of whole batches are less than the curvature, by a
factor near the size of a batch or more, which the loss itself has to tell."""

Whole = dict[str, Tensor]


def round_latents(
    task: Task,
    model: nn.Module,
    entropy: EntropyPenalty,
    kind: RoundingKind,
    untrained: Mapping[str, Tensor] | None = None,
) -> dict[str, Grid]:
    """Round all latents of a model in place to the grids of its quantizer, or to better ones, which are returned.

    Args:
        untrained: the state before training, if that is worth coding by itself; looked at for `grid` alone.
    """
    tensors, quantizer = latents(model), entropy.quantizer
    if kind == "nearest":
        return quantizer.round_(tensors)
    batches = [*islice(checked_batches(task.training(), "training data"), _BATCHES)]
    if kind == "grid":
        rounded = partial(quantizer.round_, tensors)
        return round_to_best_steps(task, model, rounded, untrained, batches, entropy.weight)
    grids = quantizer.grids()
    exact = quantizer.exact(tensors)
    nearest = {name: numbers.round() for name, numbers in exact.items()}
    _put(tensors, grids, nearest)
    with batch_statistics(model):
        curvature = squared_gradients(task, model, grids, batches)
        best, least = nearest, _objective(task, model, entropy, nearest, batches)
        for price in _PRICES:
            cheaper = cheaper_neighbours(exact, curvature, quantizer, price * entropy.weight)
            _put(tensors, grids, cheaper)
            found = _objective(task, model, entropy, cheaper, batches)
            if found < least:
                best, least = cheaper, found
    _put(tensors, grids, best)
    return grids


def cheaper_neighbours(exact: Whole, curvature: Whole, quantizer: Quantizer, price: float) -> Whole:
    """Of the two whole numbers beside each exact number, the one with the smaller h·(q − x)²/2 + price · bits(q), but
    never one that costs more bits than the nearest.

    Symbols: x the exact number of steps; h the curvature of the loss along it; bits under the quantizer's priors, and
    price of one. Ties go to the nearest. A curvature of 0 gives the cheaper one. O(n).
    """
    nearest = {name: x.round() for name, x in exact.items()}
    other = {name: q + torch.where(exact[name] >= q, 1.0, -1.0) for name, q in nearest.items()}
    bits, bits_of_other = quantizer.bits(nearest), quantizer.bits(other)
    chosen: Whole = {}
    for name, x in exact.items():
        saved = (bits[name] - bits_of_other[name]).cpu().double()
        harm = curvature[name] * ((other[name] - x).square() - (nearest[name] - x).square()) / 2
        chosen[name] = torch.where((saved > 0) & (harm < price * saved), other[name], nearest[name])
    return chosen


def squared_gradients(task: Task, model: nn.Module, grids: Mapping[str, Grid], batches: Sequence[Batch]) -> Whole:
    """The mean square of the loss's gradient along each whole number, over batches (at least one): the diagonal of the
    empirical Fisher information, up to the size of a batch.
    """
    tensors = latents(model)
    total = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in tensors.items()}
    for batch in batches:
        with torch.enable_grad():
            wanted = [name for name, tensor in tensors.items() if tensor.requires_grad]
            loss = task_loss(task, model, batch)
            slopes = torch.autograd.grad(loss, [tensors[name] for name in wanted], allow_unused=True)
        for name, slope in zip(wanted, slopes, strict=True):
            if slope is not None:
                total[name] += grids[name].slopes(slope).square()
    return {name: each / len(batches) for name, each in total.items()}


@torch.no_grad()
def _objective(
    task: Task, model: nn.Module, entropy: EntropyPenalty, numbers: Whole, batches: Sequence[Batch]
) -> float:
    losses = [float(task_loss(task, model, batch)) for batch in batches]
    bits = sum(float(each.sum()) for each in entropy.quantizer.bits(numbers).values())
    return sum(losses) / len(losses) + entropy.weight * bits


@torch.no_grad()
def _put(tensors: Mapping[str, Tensor], grids: Mapping[str, Grid], numbers: Whole) -> None:
    for name, grid in grids.items():
        tensors[name].copy_(grid.values(numbers[name], tensors[name].dtype))
