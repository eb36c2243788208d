"""What a worker does: make the workbench once, then one trial after another on it."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from rank_search import logs
from rank_search.artifacts import ArtifactStore
from rank_search.launch import Job, Runner, this_process
from rank_search.layers import Bases
from rank_search.point import Outcome
from rank_search.prepare import cache_folder, weight_of
from rank_search.priors import SpectraCache
from rank_search.study import Study
from rank_search.subject import Subject, read_subject
from rank_search.trials import Workbench, run_trial


class Cache(Protocol):
    """Where a workbench takes its bases from."""

    def bases(self, layer_name: str, weight: Tensor) -> Bases: ...


def make_workbench(subject: Subject, cache: Cache) -> Workbench:
    """What all trials in this process share: task, model, layers, plugins, bases."""
    study = subject.study
    wanted = {each.name for each in study.search.objectives} | {each.name for each in study.search.constraints}
    bases = {name: cache.bases(name, weight_of(subject.model, name)) for name in subject.inventory.layers}
    return Workbench(
        task=subject.task,
        dense=subject.model,
        layers=subject.inventory.layers,
        plugins=subject.plugins,
        bases=bases.__getitem__,
        training=study.training,
        latency=study.latency if "latency" in wanted else None,
    )


def make_runner(study: Study, artifacts: ArtifactStore) -> Runner:
    """What a worker process on this machine does before its first trial."""
    torch.set_num_threads(study.launch.torch_threads)
    log_as_worker(study.name)
    workbench = make_workbench(read_subject(study), SpectraCache(cache_folder(study)))
    return partial(run_job, workbench, artifacts, study.launch.memory_per_trial)


def log_as_worker(study: str) -> None:
    """Put study and worker on everything that this process logs."""
    logs.configure()
    logs.bind(study=study, worker=this_process())


def run_job(workbench: Workbench, artifacts: ArtifactStore, memory: float | None, job: Job) -> Outcome:
    """Run one trial; `memory`: GiB that it may take."""
    with logs.trial_context(job.number, job.attempt):
        return run_trial(
            workbench,
            job.point,
            job.rng_seed,
            artifacts,
            budget=job.budget,
            checkpoint=job.checkpoint,
            memory=memory,
        )
