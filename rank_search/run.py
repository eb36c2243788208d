"""Wires the rooms along the path of the data, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from rank_search.fronts import Store, StudyRecord, TrialRow, artifact_folder
from rank_search.launch import Executor, InProcess, Job, LaunchSettings, Processes, Runner
from rank_search.launch.driver import Driver, Plan
from rank_search.launch.progress import Progress
from rank_search.point import Outcome, Point
from rank_search.prepare import Prepared, cache_folder, prepare, weight_of
from rank_search.priors import SpectraCache
from rank_search.record import join_study
from rank_search.search import Searcher, check_counted
from rank_search.study import Study
from rank_search.subject import Subject, read_subject
from rank_search.trials import (
    Task,
    Workbench,
    build,
    from_safetensors,
    read_artifact,
    rehearse,
    run_trial,
    test_measurements,
    threads,
)

_LEFT_BY_TRIALS = (".safetensors", ".coded", ".part")


@dataclass(frozen=True)
class Result:
    """A study that has run: where its store is, its front, whether it reached its number of trials, and how many
    trials this run added.
    """

    study: StudyRecord
    store: str
    front: tuple[TrialRow, ...]
    complete: bool
    added: int


def run_study(
    study: Study,
    *,
    task: Task | None = None,
    store: str | None = None,
    trials: int | None = None,
    workers: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Run a study, or go on with it, until it has its number of finished trials in all.

    Args:
        task: the task, when it is at hand (then the trials run in this process); otherwise the study file's.
        store, trials, workers: instead of the study file's.
        report: told after every trial how far the search is.

    Raises:
        RankSearchError: something of the user's cannot be used, or the store has another study of that name.
    """
    location = store or study.store
    launch = study.launch if workers is None else study.launch.model_copy(update={"workers": workers})
    with threads(launch.threads if task is None else torch.get_num_threads()):
        prepared = prepare(study, task)
        workbench = make_workbench(prepared.subject, prepared.cache)
        rehearse(workbench.task, workbench.dense, workbench.training)
        with Store.open(location, create=True) as opened:
            record = join_study(opened, prepared, workbench)
            folder = artifact_folder(location, study.name)
            alone = task is not None or (launch.workers == 1 and launch.time_limit is None)
            executor = _in_driver(workbench, folder) if alone else _in_workers(prepared, launch, folder)
            plan = _plan(prepared, record, trials or study.study.trials, folder)
            driver = Driver(opened, record, _searcher(prepared, record), executor, plan, report)
            complete = driver.run()
            _sweep(opened, record, folder)
            _report_on_test(opened, record, workbench, folder)
            return Result(record, location, tuple(opened.front(record)), complete, driver.done_here)


def _searcher(prepared: Prepared, record: StudyRecord) -> Searcher:
    study = prepared.subject.study
    return Searcher(prepared.space, prepared.costs, study.search, prepared.seeds, record.dense, study.study.seed)


def _in_driver(workbench: Workbench, folder: Path) -> Executor:
    return InProcess(partial(_run, workbench, folder))


def _in_workers(prepared: Prepared, launch: LaunchSettings, folder: Path) -> Executor:
    """Worker processes; the bases are on disk before they start, so that each is decomposed only once."""
    _decompose(prepared)
    make = partial(_make_runner, prepared.subject.study, folder)
    return Processes(make, launch.workers, launch.max_retries, launch.time_limit)


def _decompose(prepared: Prepared) -> None:
    """Decompose every unfolding that a fit may ask for."""
    subject = prepared.subject
    for name, layer in subject.inventory.layers.items():
        bases = prepared.cache.bases(name, weight_of(subject.model, name))
        for plugin in subject.choices[name]:
            for axis in subject.plugins[plugin].axes(layer):
                for unfolding in axis.unfoldings:
                    bases(unfolding)


# ---- what trials share -----------------------------------------------------------------------------------


def make_workbench(subject: Subject, cache: SpectraCache) -> Workbench:
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


def _make_runner(study: Study, folder: Path) -> Runner:
    """What a worker process does before its first trial."""
    torch.set_num_threads(study.launch.threads)
    workbench = make_workbench(read_subject(study), SpectraCache(cache_folder(study)))
    return partial(_run, workbench, folder)


def _run(workbench: Workbench, folder: Path, job: Job) -> Outcome:
    return run_trial(workbench, job.point, job.rng_seed, folder)


# ---- around the search -----------------------------------------------------------------------------------


def _plan(prepared: Prepared, record: StudyRecord, target: int, folder: Path) -> Plan:
    study = prepared.subject.study
    return Plan(
        target=target,
        budget=record.budget,
        rng_seed=study.study.seed,
        constraints=study.search.constraints,
        judge=partial(_judge, prepared, record.dense),
        max_retries=study.launch.max_retries,
        artifacts=folder,
    )


def _judge(prepared: Prepared, dense: Mapping[str, float], point: Point) -> Outcome | None:
    bounds = prepared.subject.study.search.constraints
    return check_counted(bounds, prepared.costs.cost(point), dense) if bounds else None


def _sweep(store: Store, study: StudyRecord, folder: Path) -> None:
    """Remove files that no trial of the store knows: left by a process that was killed.

    The files are listed first: one that another driver adds meanwhile is none of them.
    """
    files = list(folder.iterdir()) if folder.is_dir() else []
    if not files or store.claims(study):
        return
    known = {artifact.location for row in store.trials(study) for artifact in row.artifacts}
    for path in files:
        if path.name not in known and path.suffix in _LEFT_BY_TRIALS:
            path.unlink(missing_ok=True)


def _report_on_test(store: Store, study: StudyRecord, workbench: Workbench, folder: Path) -> None:
    """Measure the front's members on the test data, each once, after the search."""
    for row in store.front(study):
        missing = [name for name in study.dense if name.startswith("test_") and name not in row.measurements]
        if missing:
            store.amend(study, row.number, test_measurements(workbench.task, _model(workbench, row, folder)))


def _model(workbench: Workbench, row: TrialRow, folder: Path) -> nn.Module:
    artifact = next(each for each in row.artifacts if each.kind == "model")
    state = from_safetensors(read_artifact(folder, artifact))
    return build(workbench.dense, row.point, workbench.layers, workbench.plugins, state)
