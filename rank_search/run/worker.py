"""What a worker does: make the workbench once, then one trial after another on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from rank_search.artifacts import ArtifactStore
from rank_search.launch import Job, Runner, this_process
from rank_search.layers import Bases
from rank_search.observe import logs
from rank_search.point import Outcome, Point, State
from rank_search.run.preparation import begin, layer_bases
from rank_search.study import Problem, Study
from rank_search.training import from_safetensors
from rank_search.trials import LATENCY, LATENCY_RATIO, TrialContext, build, on_test, run_trial, test_measurements


def make_workbench(problem: Problem, bases: Mapping[str, Bases]) -> TrialContext:
    """What all trials in this process share: task, model, layers, plugins, bases."""
    study = problem.study
    wanted = {each.name for each in study.search.objectives} | {each.name for each in study.search.constraints}
    return TrialContext(
        task=problem.task,
        dense=problem.model,
        layers=problem.inventory.layers,
        plugins=problem.plugins,
        bases=bases.__getitem__,
        training=study.training,
        coding=study.coding,
        examples=problem.examples,
        latency=study.latency if {LATENCY, LATENCY_RATIO} & wanted else None,
    )


def with_dense(workbench: TrialContext, problem: Problem, dense: Mapping[str, float]) -> TrialContext:
    """The same, with what the study has measured of the dense model, so that no trial measures it again.

    If trials begin from another network than the user's own, their dense model is that one, and only the unit of
    latency is shared.
    """
    tested = on_test(dense)
    known = {name: value for name, value in dense.items() if name not in tested}
    is_own = problem.model is problem.original
    return replace(workbench, dense_latency=dense.get(LATENCY), dense_measured=known if is_own else {})


# ---- what a worker process on this machine does before its first trial, step by step -----------------------


def init_worker(study: Study, _: None) -> None:
    """Whatever takes no look at the task yet; to get here, everything that a worker needs has been imported."""
    torch.set_num_threads(study.launch.torch_threads)
    log_as_worker(study.name)


def load(study: Study, _: None) -> Problem:
    """The worker's own copy of task, model and data; the driver has made its own, so what is made once is there."""
    return begin(study)


def make_runner(
    moments: Mapping[str, NDArray[Any]], artifacts: ArtifactStore, dense: Mapping[str, float], problem: Problem
) -> Runner:
    """What runs trials, with what the driver has found."""
    known = {name: torch.from_numpy(moment) for name, moment in moments.items()}
    made = make_workbench(problem, layer_bases(problem, known))
    return partial(run_job, with_dense(made, problem, dense), artifacts, problem.study.launch.memory_per_trial)


# ---- on any machine ----------------------------------------------------------------------------------------


def log_as_worker(study: str) -> None:
    """Put study and worker on everything that this process logs."""
    logs.configure()
    logs.bind(study=study, worker=this_process())


def run_job(workbench: TrialContext, artifacts: ArtifactStore, memory: float | None, job: Job) -> Outcome:
    """Run one trial; `memory`: GiB that it may take. Or measure its model on the test data."""
    with logs.trial_context(job.number, job.attempt):
        if job.trained is not None:
            return _tested(workbench, job.point, artifacts.read(job.trained))
        return run_trial(
            workbench,
            job.point,
            job.rng_seed,
            artifacts,
            budget=job.budget,
            checkpoint=job.checkpoint,
            memory=memory,
        )


def _tested(workbench: TrialContext, point: Point, model: bytes) -> Outcome:
    built = build(workbench.dense, point, workbench.layers, workbench.plugins, from_safetensors(model))
    return Outcome(State.COMPLETE, test_measurements(workbench.task, built))
