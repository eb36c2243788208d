"""How much the errors of each layer count, learned before the first trial and kept beside the spectra."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from rank_search.continuous import IMPORTANCE_STEPS, LOOKED_AT, mean_importance, middle_costs, with_importances
from rank_search.options import OptionTable
from rank_search.priors import TensorFiles
from rank_search.run.seen_outputs import SeenOutputs
from rank_search.study import Problem
from rank_search.tasks import task_errors

_steps: Final = logging.getLogger("rank_search.steps")


def with_learned_importances(problem: Problem, table: OptionTable, count: int, folder: Path) -> OptionTable:
    """The table with each group's errors times their importance, learned at so many costs; none leaves it as it is.

    What was learned before for the same weights, options and batches is taken from the folder.

    Raises:
        TaskError: the task has no training data, or the model does not run on it, or has no gradients.
    """
    if not count:
        return table
    with task_errors("inputs() or model"):
        return _learned(problem, table, count, folder)


def _learned(problem: Problem, table: OptionTable, count: int, folder: Path) -> OptionTable:
    seen = SeenOutputs.of(problem, table, LOOKED_AT, IMPORTANCE_STEPS)
    costs, files = middle_costs(table, seen.shares, count, seen.most), TensorFiles(folder)
    name = f"importances-1-{seen.key(costs)}"
    stored = files.load(name)
    if stored is None:
        _steps.info("Learning at %d costs how much the errors of each layer count", count)
        stored = {"mean": mean_importance(seen.search(), costs, _say)}
        files.save(name, stored)
    return with_importances(table, stored["mean"])


def _say(done: int, count: int, cost: float) -> None:
    _steps.info("Importances, %d of %d: at %.0f%% of the cost", done, count, 100 * cost)
