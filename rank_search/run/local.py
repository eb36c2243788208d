"""What is made once for a search on this machine, and the way to where its trials run.

They run in the driver itself, or in worker processes, which wake up and load their task while the driver prepares.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final, final

from numpy.typing import NDArray
from torch import Tensor

from rank_search.artifacts import ArtifactStore
from rank_search.launch import Executor, InProcess, Processes
from rank_search.priors import KeptTensors
from rank_search.run.preparation import Prepared, begin, prepare, prepare_subject
from rank_search.run.worker import Findings, LocalRecipe, Workplace, make_context, run_job, with_dense
from rank_search.study import Problem, Study
from rank_search.tasks import Task
from rank_search.trials import TrialContext

_steps: Final = logging.getLogger("rank_search.steps")


@contextmanager
def on_this_machine(study: Study, task: Task | None) -> Iterator[Workplace]:
    """Prepare the study, and make the way to its workers: processes if there are several, or a time limit."""
    launch = study.launch
    if task is not None or (launch.workers in (None, 1) and launch.time_limit is None):
        prepared = prepare(study, task)
        context = make_context(prepared.problem, prepared.bases, prepared.batches)
        yield Workplace(prepared, context, partial(_in_driver, prepared, context))
        return
    with closing(_Workers(study)) as workers:
        problem = begin(study)
        workers.load()
        prepared = prepare_subject(problem)
        context = make_context(problem, prepared.bases, prepared.batches)
        yield Workplace(prepared, context, partial(workers.executor, prepared))


def _in_driver(
    prepared: Prepared, context: TrialContext, artifacts: ArtifactStore, dense: Mapping[str, float]
) -> Executor:
    return InProcess(partial(run_job, with_dense(context, prepared.problem, dense), artifacts))


@final
class _Workers:
    """Worker processes that start before the driver is ready for them.

    They load the task only when the driver has loaded it: what a task makes once, such as a download, is there
    then, and made by one process.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._waiting: Processes[Problem, Findings] | None = self._woken()

    def load(self) -> None:
        """Have the workers load their task."""
        if self._waiting is not None:
            self._waiting.load()

    def executor(self, prepared: Prepared, artifacts: ArtifactStore, dense: Mapping[str, float]) -> Executor:
        """The workers with all that the driver has found, at work; the first time, those that wait for it."""
        workers = self._study.launch.workers or 1
        _steps.info("Decomposing the weights, and starting %d %s", workers, "worker" if workers == 1 else "workers")
        _decompose(prepared)
        inputs, gradients = map(_handed, (prepared.moments.inputs, prepared.moments.gradients))
        processes, self._waiting = self._waiting or self._woken().load(), None
        return processes.serve(Findings(inputs, gradients, prepared.batches, artifacts, dict(dense)))

    def close(self) -> None:
        """End those that still wait; an executor is closed by whoever has it."""
        if self._waiting is not None:
            self._waiting.close()

    def _woken(self) -> Processes[Problem, Findings]:
        launch = self._study.launch
        return Processes(LocalRecipe(self._study), launch.workers or 1, launch.time_limit)


def _decompose(prepared: Prepared) -> None:
    """Every basis is on disk before workers ask for it, so that each is decomposed only once."""
    for name, bases in prepared.bases.items():
        bases.decompose(prepared.problem.unfoldings(name))


def _handed(moments: Mapping[str, Tensor]) -> Mapping[str, NDArray[Any] | Tensor]:
    """For workers on this machine: where moments lie, if that is in files, or else the moments themselves."""
    if isinstance(moments, KeptTensors):
        return moments
    return {name: moment.cpu().numpy() for name, moment in moments.items()}
