"""Batch-norm statistics, taken again after weights have changed under them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rank_search.coding import Grid
from rank_search.errors import TaskError
from rank_search.layers import Example
from rank_search.tasks import Batch, Task, as_for_loss, checked_batches, is_lone, run_on

_log = logging.getLogger(__name__)


@torch.no_grad()
def reestimate_batchnorm(task: Task, model: nn.Module, batches: int | None = None) -> None:
    """Set the statistics of every batch norm that takes some in training to the average over the training data.

    Everything else runs as in eval mode (no dropout), where it ends; momenta stay as they are. A model without
    such batch norms costs nothing. The average is of per-batch statistics (momentum None: cumulative). A batch that a
    norm cannot take statistics of, with one value for each channel, is left out. Where the training data is made up
    (`Task.keeps_statistics`) nothing is done: norms keep what the dense model has.

    Args:
        batches: of how many, the first of a pass; None, or more than there are: a whole pass; 0: nothing is done.

    Raises:
        TaskError: there is no training data, or no batch that statistics can be taken of.
    """
    norms = [] if batches == 0 or task.keeps_statistics() else learning_norms(model)
    model.eval()
    if norms:
        with as_for_loss(model, norms):
            passed = islice(checked_batches(task.training(), "training data"), batches)
            _take_again(norms, passed, lambda batch: task.loss(model, batch))
        model.eval()


@torch.no_grad()
def reestimate_on(model: nn.Module, inputs: Iterable[Example]) -> None:
    """The same for a model without a task: the batches are its own inputs, and all else runs in evaluation mode.

    Raises:
        TaskError: the model does not run on a batch, there is none, or none that statistics can be taken of.
    """
    norms = learning_norms(model)
    model.eval()
    if not norms:
        return
    for norm in norms:
        norm.training = True
    try:
        numbered = enumerate(checked_batches(inputs, "the batches"))
        _take_again(norms, numbered, lambda batch: run_on(model, batch[1], batch[0]))
    finally:
        model.eval()


def _take_again(norms: Sequence[_BatchNorm], batches: Iterable[Batch], run: Callable[[Batch], object]) -> None:
    """Let the norms average the statistics of all batches, starting afresh."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    taken = 0
    try:
        for batch in batches:
            taken += _is_taken(norms, batch, run)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    if not taken:
        raise TaskError(
            "The training data has no batch with more than one example, which batch norms need for their statistics. "
            "Use larger batches."
        )


def _is_taken(norms: Sequence[nn.Module], batch: Batch, run: Callable[[Batch], object]) -> bool:
    """Whether the norms could take the statistics of this batch; if not, they are as before."""
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        run(batch)
    except ValueError as error:
        if not is_lone(error):
            raise
        _log.info("A batch of one example has no statistics for batch norms; it is left out.")
        for buffer, before in kept:
            buffer.copy_(before)
        return False
    return True


def learning_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms whose running statistics follow the data in training.

    A norm is frozen on purpose, and its statistics are left alone, if it stays in evaluation mode when the model is put
    into training mode, if its momentum is 0, or if its weight and bias take no gradient while others in the model do.
    The model's modes are put back.
    """
    modes = {module: module.training for module in model.modules()}
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
    for module, training in modes.items():
        module.training = training
    some_learn = any(parameter.requires_grad for parameter in model.parameters())
    return [norm for norm in norms if norm.momentum != 0 and not (some_learn and _takes_no_gradient(norm))]


def _takes_no_gradient(norm: _BatchNorm) -> bool:
    own = list(norm.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


_FINE: Final = 2.0**-4  # step of the vectors of a batch norm, in units of their mean magnitude: about six bits each


def canonical_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms that are a scale and a shift for each channel: with weights and statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.affine and module.track_running_stats
    }


@torch.no_grad()
def canonize(model: nn.Module) -> dict[str, Grid]:
    """Give batch norms their canonical form in place, rounded to a fine grid; returned are the grids.

    Symbols: y = (x − μ)/√(v + ε)·w + b is y = a·x + c with a = w/√(v + ε) and c = b − a·μ. The canonical form has
    weight a, bias c, mean 0, variance 1 − ε and count 0: two vectors, and the rest constant. The scale a is rounded
    first, and c is that of the rounded scale, so that the outputs' means stay. It holds in eval mode; statistics that
    are taken again after it change what the model computes.
    """
    grids: dict[str, Grid] = {}
    for name, norm in canonical_norms(model).items():
        mean, variance = norm.running_mean.double(), norm.running_var.double()  # type: ignore[union-attr]
        spread = float(norm.weight.abs().mean())  # of the outputs
        slope = norm.weight.double() / (variance + norm.eps).sqrt()
        grids[f"{name}.weight"] = _put(norm.weight, slope, float(slope.abs().mean()), "scale")
        shift = norm.bias.double() - norm.weight.double() * mean  # of the scale as it was rounded
        grids[f"{name}.bias"] = _put(norm.bias, shift, spread, "shift")
        norm.reset_running_stats()
        norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
    return grids


def _put(parameter: nn.Parameter, values: Tensor, spread: float, group: str) -> Grid:
    usable = spread if math.isfinite(spread) and spread > 0 else 1.0
    grid = Grid.nearest(torch.full((1,), _FINE * usable), group=f"batch norm {group}")
    parameter.copy_(grid.values(grid.round(values).cpu(), parameter.dtype))
    return grid


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """The model as for its loss, but batch norms take the statistics of each batch and keep none of them.

    Those that are frozen (see `learning_norms`) stay as they are.
    """
    norms = learning_norms(model)
    kept = [(norm.momentum, norm.state_dict()) for norm in norms]
    kept = [(momentum, {name: each.clone() for name, each in state.items()}) for momentum, state in kept]
    for norm in norms:
        norm.momentum = 0.0
    try:
        with as_for_loss(model, norms):
            yield
    finally:
        for norm, (momentum, state) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(state[name])
        model.eval()
