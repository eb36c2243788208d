"""Whether batch norms can take their statistics again, once weights have changed under them."""

from __future__ import annotations

import logging
from typing import Final

from rank_search.errors import TaskError
from rank_search.quantization import learning_norms
from rank_search.study import Problem
from rank_search.tasks import has_training
from rank_search.training import TrainingSettings

_log: Final = logging.getLogger(__name__)


def why_kept(problem: Problem) -> str:
    """Why batch norms keep the dense model's statistics, in words; empty if they do not, or if there are none.

    Raises:
        TaskError: the task raises.
    """
    if problem.study.training.norm_batches == 0 or not learning_norms(problem.model):
        return ""
    if problem.task.keeps_statistics():
        return "there is no real data to take others on"
    return "" if has_training(problem.task) else "there is no training data to take others on"


def training_settings(problem: Problem) -> TrainingSettings:
    """Those of the study file; batch norms keep the dense model's statistics where they cannot take any.

    Raises:
        TaskError: the task raises.
    """
    settings = problem.study.training
    return settings.model_copy(update={"batchnorm_batches": 0}) if why_kept(problem) else settings


def check_data(problem: Problem) -> None:
    """Before the first trial: say if batch norms keep their statistics, and refuse what needs data where there is none.

    Raises:
        TaskError: the task raises, or weights are to be rounded by a loss on training data that is not there.
    """
    if why := why_kept(problem):
        _log.warning("Batch norms keep the statistics of the dense model in every trial: %s.", why)
    study = problem.study
    rounds = study.search.entropy.high > 0 and study.coding.rounding != "nearest"
    if rounds and not has_training(problem.task):
        raise TaskError(
            f'[coding] rounding = "{study.coding.rounding}" rounds weights by the loss on training batches, and there '
            'are none. Set rounding = "nearest", or give training data.'
        )
