"""At how many costs importances are learned: as asked for, or, left open, where they are worth their time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch

from rank_search.continuous import COSTS, IMPORTANCE_STEPS, LOOKED_AT, memory_of
from rank_search.layers import Example, forward, in_evaluation, tensors_of
from rank_search.options import OptionTable, mean_shares
from rank_search.search import CONTINUOUS
from rank_search.study import Problem
from rank_search.tasks import (
    Batch,
    LanguageModel,
    Supervised,
    checked_batches,
    logits_of,
    seeded,
    task_errors,
    without_device,
)

FEWEST: Final = 12
"""Groups of layers: of five they are as good as equal, of 18 and 30 worth as much as twice the trials."""

TRIALS: Final = 10
"""Learning may take no longer than this many: those of the seed points."""

MACS: Final = 1e13
"""Some minutes of a core."""

MEMORY: Final = 4e9
"""In bytes, for the weights of all forms that layers may become, and for the outputs that are to be matched."""

FORWARDS: Final = 3
"""That a forward with its backward counts for."""


def asked_importances(problem: Problem, table: OptionTable, batches: int) -> int:
    """At how many costs they are learned for a search; `batches` of training data are looked at.

    Raises:
        TaskError: the task raises.
    """
    asked = problem.study.priors.importances
    if asked != "auto":
        return asked if batches else 0
    return COSTS if batches and _may_help(problem, table) and _is_cheap(problem, table) else 0


def _may_help(problem: Problem, table: OptionTable) -> bool:
    """Whether there are many layers, nothing else says how much they count, and inputs and outputs are known as such.

    Of a task of somebody else's it is not known which dimension of the outputs has the classes.
    """
    study = problem.study
    says = study.priors.metric == "loss" or study.priors.cuts > 0 or study.search.sampler == CONTINUOUS
    is_ours = isinstance(without_device(problem.task), Supervised | LanguageModel)
    return is_ours and not says and len(table.of) >= FEWEST


def _is_cheap(problem: Problem, table: OptionTable) -> bool:
    """Whether learning takes no more than `MEMORY`, `MACS` and `TRIALS` trials; a backward counts as two forwards."""
    study, task = problem.study, problem.task
    with seeded(study.study.seed), task_errors("training(), selection() or inputs()"):
        size = _size(problem, next(checked_batches(task.training(), "training data")))
        inputs = FORWARDS * COSTS * IMPORTANCE_STEPS * size
        shares = mean_shares([each.name for each in study.search.objectives])
        memory = memory_of(table, shares) + 4 * LOOKED_AT * size * _outputs(problem)
        if memory > MEMORY or inputs * table.dense["macs"] > MACS:
            return False
        left = inputs / TRIALS
        left -= _seen(problem, task.selection(), left)
        epochs = FORWARDS * study.training.epochs
        return left <= 0 or (epochs > 0 and epochs * _seen(problem, task.training(), left / epochs) >= left)


def _seen(problem: Problem, batches: Iterable[Batch], enough: float) -> float:
    """How many inputs there are, or as many as are enough."""
    count = 0.0
    for batch in batches:
        count += _size(problem, batch)
        if count >= enough:
            break
    return count


def _size(problem: Problem, batch: Batch) -> float:
    """How many times the example a batch is, by the numbers in the first tensor of each."""
    return _numbers(problem.task.inputs(batch)) / max(1, _numbers(problem.examples[0]))


def _numbers(inputs: Example) -> int:
    return next((each.numel() for each in tensors_of(inputs)), 1)


def _outputs(problem: Problem) -> int:
    """How many numbers the model gives for the example."""
    with torch.no_grad(), in_evaluation(problem.model):
        found = logits_of(forward(problem.model, problem.examples[0]))
    return sum(each.numel() for each in tensors_of(found))
