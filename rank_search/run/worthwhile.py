"""At how many costs importances are learned: as asked for, or, left open, where they are worth their time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rank_search.continuous import COSTS, IMPORTANCE_STEPS, memory_of
from rank_search.layers import tensors_of
from rank_search.options import OptionTable, mean_shares
from rank_search.search import CONTINUOUS
from rank_search.study import Problem
from rank_search.tasks import Batch, LayerErrorTask, checked_batches, seeded, task_errors

FEWEST: Final = 12
"""Groups of layers: of five they are as good as equal, of 18 and 30 worth as much as twice the trials."""

TRIALS: Final = 10
"""That may take no less time than learning: those of the seed points."""

MACS: Final = 1e13
"""Some minutes of a core."""

MEMORY: Final = 4e9
"""In bytes, for the weights of all forms that layers may become."""

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
    return COSTS if batches and _may_help(problem, table) and _is_quick(problem, table) else 0


def _may_help(problem: Problem, table: OptionTable) -> bool:
    """Whether there are many layers, nothing else says how much their errors count, and their forms fit into memory."""
    study = problem.study
    says = study.priors.metric == "loss" or study.priors.cuts > 0 or study.search.sampler == CONTINUOUS
    if says or isinstance(problem.task, LayerErrorTask) or study.data.source != "task" or len(table.of) < FEWEST:
        return False
    return memory_of(table, mean_shares([each.name for each in study.search.objectives])) <= MEMORY


def _is_quick(problem: Problem, table: OptionTable) -> bool:
    """Whether learning takes no more than `MACS`, and than `TRIALS` trials; a backward counts as two forwards."""
    study, task = problem.study, problem.task
    with seeded(study.study.seed), task_errors("training() or selection()"):
        first = next(checked_batches(task.training(), "training data"))
        inputs = FORWARDS * COSTS * IMPORTANCE_STEPS * _size(problem, first)
        if inputs * table.dense["macs"] > MACS:
            return False
        left = inputs / TRIALS
        left -= _seen(problem, task.selection(), left)
        epochs = FORWARDS * study.training.epochs
        return left <= 0 or (epochs > 0 and epochs * _seen(problem, task.training(), left / epochs) >= left)


def _seen(problem: Problem, batches: Iterable[Batch], enough: float) -> int:
    """How many inputs there are, or as many as are enough."""
    count = 0
    for batch in batches:
        count += _size(problem, batch)
        if count >= enough:
            break
    return count


def _size(problem: Problem, batch: Batch) -> int:
    """How many inputs a batch has."""
    tensors = tensors_of(problem.task.inputs(batch))
    return len(tensors[0]) if tensors and tensors[0].dim() else 1
