"""What a worker does: make what trials share once, then one trial after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from rank_search.artifacts import RECOVERY, ArtifactStore, Recoveries
from rank_search.coding import from_safetensors
from rank_search.launch import Executor, Job, Runner, WorkerRecipe, this_process
from rank_search.layers import Bases
from rank_search.observe import logs
from rank_search.options import judged_costs
from rank_search.point import Outcome, Point, State
from rank_search.priors import KeptTensors
from rank_search.run.kept_statistics import training_settings
from rank_search.run.preparation import Prepared, begin, layer_bases, sequential_pass
from rank_search.study import Problem, Study
from rank_search.tasks import LayerMoments
from rank_search.training import Keep
from rank_search.trials import LATENCY, LATENCY_RATIO, TrialContext, build, on_test, run_trial, test_measurements

ExecutorFor = Callable[[ArtifactStore, Mapping[str, float]], Executor]
"""The way to where trials run: of the place for artifacts, and of what the study has measured of the dense model."""


class Workplace(NamedTuple):
    """All that is made once before the first trial, and the way to where trials run."""

    prepared: Prepared
    context: TrialContext
    executor_for: ExecutorFor


def make_context(problem: Problem, bases: Mapping[str, Bases], batches: int) -> TrialContext:
    """What all trials in this process share: task, model, layers, plugins, bases.

    Args:
        batches: that the moments in the bases are from.
    """
    study = problem.study
    wanted = {each.name for each in study.search.objectives} | {each.name for each in study.search.constraints}
    return TrialContext(
        task=problem.task,
        dense=problem.model,
        layers=problem.inventory.layers,
        plugins=problem.plugins,
        bases=bases.__getitem__,
        training=training_settings(problem),
        coding=study.coding,
        examples=problem.examples,
        latency=study.latency if {LATENCY, LATENCY_RATIO} & wanted else None,
        memory=study.launch.memory_per_trial,
        sequential=sequential_pass(problem, batches),
        round_to=study.search.round_to,
        judged=judged_costs(study.search.asked),
        row=study.search.row,
    )


def with_dense(context: TrialContext, problem: Problem, dense: Mapping[str, float]) -> TrialContext:
    """The same, with what the study has measured of the dense model, so that no trial measures it again.

    If trials begin from another network than the user's own, their dense model is that one, and only the unit of
    latency is shared.
    """
    tested = on_test(dense)
    known = {name: value for name, value in dense.items() if name not in tested}
    is_own = problem.model is problem.original
    return replace(context, dense_latency=dense.get(LATENCY), dense_measured=known if is_own else {})


@dataclass(frozen=True)
class Findings:
    """What the driver has found, for the workers on its machine.

    Attributes:
        inputs, gradients: second moments of the layers' inputs, and of the gradients at their outputs, by layer.
        batches: that these are from.
        artifacts: where trials leave their files.
        dense: what the study has measured of the dense model.
    """

    inputs: Mapping[str, NDArray[Any] | Tensor]
    gradients: Mapping[str, NDArray[Any] | Tensor]
    batches: int
    artifacts: ArtifactStore
    dense: Mapping[str, float]


@final
@dataclass(frozen=True)
class LocalRecipe(WorkerRecipe[Problem, Findings]):
    """A worker process on the driver's machine: it has its own task, and bases from the same cache on disk."""

    study: Study

    def init(self) -> None:
        """To get here, everything that a worker needs has been imported."""
        torch.set_num_threads(self.study.launch.torch_threads)
        log_as_worker(self.study.name)

    def load(self, place: int) -> Problem:
        """The driver has made its own, so what a task makes once is there."""
        return begin(self.study, place=place)

    def runner(self, loaded: Problem, found: Findings) -> Runner:
        moments = LayerMoments(_received(found.inputs), _received(found.gradients))
        context = make_context(loaded, layer_bases(loaded, moments), found.batches)
        return partial(run_job, with_dense(context, loaded, found.dense), found.artifacts)


def _received(moments: Mapping[str, NDArray[Any] | Tensor]) -> Mapping[str, Tensor]:
    if isinstance(moments, KeptTensors):
        return moments
    return {name: torch.as_tensor(moment) for name, moment in moments.items()}


def log_as_worker(study: str) -> None:
    """Put study and worker on everything that this process logs."""
    logs.configure()
    logs.bind(study=study, worker=this_process())


def run_job(context: TrialContext, artifacts: ArtifactStore, job: Job) -> Outcome:
    """Run one trial, or measure the model of a finished one on the test data."""
    with logs.trial_context(job.number, job.attempt):
        if job.trained is not None:
            return _tested(context, job.point, artifacts.read(job.trained))
        budget, checkpoint = job.budget, job.checkpoint
        keep = _keep(artifacts, job) if job.checkpoint_seconds else None
        return run_trial(context, job.point, job.rng_seed, artifacts, budget=budget, checkpoint=checkpoint, keep=keep)


def _keep(artifacts: ArtifactStore, job: Job) -> Keep:
    before = job.checkpoint.location if job.checkpoint is not None else ""
    own = Recoveries(artifacts, job.point.key, job.mark, before if before.endswith(RECOVERY) else "")
    return Keep(job.checkpoint_seconds, lambda data, epochs: own.keep(data, job.attempt, epochs))


def _tested(context: TrialContext, point: Point, model: bytes) -> Outcome:
    built = build(context.dense, point, context.layers, context.plugins, from_safetensors(model))
    return Outcome(State.COMPLETE, test_measurements(context.task, built))
