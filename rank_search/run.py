"""Wires the rooms along the path of the data, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from rank_search.artifacts import PART, ArtifactStore, artifacts_at
from rank_search.cluster import PROBE, on_cluster
from rank_search.errors import ArtifactError
from rank_search.fronts import Store, StudyRecord, TrialRow, artifact_folder
from rank_search.launch import Executor, InProcess, LaunchSettings, Processes
from rank_search.launch.driver import Driver, Plan
from rank_search.launch.progress import Progress
from rank_search.launch.watchers import Watcher
from rank_search.point import Outcome, Point
from rank_search.prepare import Prepared, prepare, weight_of
from rank_search.record import join_study
from rank_search.search import Rungs, Searcher, check_counted, require_rungs_fit
from rank_search.study import Study
from rank_search.trials import Task, Workbench, build, from_safetensors, rehearse, test_measurements, threads
from rank_search.work import make_runner, make_workbench, run_job

_LEFT_BY_TRIALS = (".safetensors", ".coded", ".checkpoint", PROBE, PART)

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Result:
    """A study that has run.

    Attributes:
        store: where it is kept; `shown` is the same without credentials.
        complete: whether it reached its number of trials.
        added: how many trials this run added.
    """

    study: StudyRecord
    store: str = field(repr=False)  # it may hold a password
    shown: str
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
    report: Report = lambda progress: None,
) -> Result:
    """Run a study, or go on with it, until it has its number of finished trials in all.

    Args:
        task: the task, when it is at hand (then the trials run in this process, or on Ray); otherwise the study
            file's.
        store, trials, workers: instead of the study file's.
        report: told after every trial how far the search is.

    Raises:
        RankSearchError: something of the user's cannot be used, or the store has another study of that name.
    """
    location = store or study.store
    launch = study.launched({"workers": workers}).launch
    require_rungs_fit(study.search.rungs, study.training.epochs)
    own_threads = launch.torch_threads if task is None else torch.get_num_threads()
    with threads(own_threads), _ready(study, task, launch) as (prepared, workbench, executor_for):
        rehearse(workbench.task, workbench.dense, workbench.training)
        with Store.open(location, create=True, patience=launch.store_patience) as opened:
            record = join_study(opened, location, prepared, workbench)
            artifacts = artifacts_at(record.artifacts, artifact_folder(location, study.name))
            executor = executor_for(artifacts)
            plan = _plan(prepared, record, launch, trials or study.study.trials, artifacts)
            searcher, watchers = _searcher(prepared, record), _watchers(study.name, launch)
            driver = Driver(opened, record, searcher, executor, plan, report, watchers)
            complete = driver.run()
            _sweep(opened, record, artifacts)
            _report_on_test(opened, record, workbench, artifacts)
            return Result(record, location, opened.location, tuple(opened.front(record)), complete, driver.done_here)


# ---- where trials run ------------------------------------------------------------------------------------

ExecutorFor = Callable[[ArtifactStore], Executor]


Ready = tuple[Prepared, Workbench, ExecutorFor]


@contextmanager
def _ready(study: Study, task: Task | None, launch: LaunchSettings) -> Iterator[Ready]:
    """All that is made once before the first trial, and the way to the executor."""
    if launch.on == "ray":
        with on_cluster(study, task, launch) as made:
            yield made
        return
    prepared = prepare(study, task)
    workbench = make_workbench(prepared.subject, prepared.cache)
    alone = task is not None or (launch.workers in (None, 1) and launch.time_limit is None)
    in_workers = partial(_in_workers, prepared, launch)
    yield prepared, workbench, partial(_in_driver, workbench, launch) if alone else in_workers


def _in_driver(workbench: Workbench, launch: LaunchSettings, artifacts: ArtifactStore) -> Executor:
    return InProcess(partial(run_job, workbench, artifacts, launch.memory_per_trial))


def _in_workers(prepared: Prepared, launch: LaunchSettings, artifacts: ArtifactStore) -> Executor:
    """Worker processes; the bases are on disk before they start, so that each is decomposed only once."""
    subject = prepared.subject
    for name in subject.inventory.layers:
        prepared.cache.bases(name, weight_of(subject.model, name)).decompose(subject.unfoldings(name))
    make = partial(make_runner, subject.study.model_copy(update={"launch": launch}), artifacts)
    return Processes(make, launch.workers or 1, launch.time_limit)


def _watchers(study: str, launch: LaunchSettings) -> list[Watcher]:
    """Who else is told of the trials."""
    watchers: list[Watcher] = []
    if launch.tensorboard:
        from rank_search.launch.tensorboard import TensorBoard

        watchers.append(TensorBoard(Path(launch.tensorboard) / study))
    if launch.on == "ray":
        from rank_search.launch.ray import RayMetrics

        watchers.append(RayMetrics(study))
    return watchers


# ---- around the search -----------------------------------------------------------------------------------


def _searcher(prepared: Prepared, record: StudyRecord) -> Searcher:
    study = prepared.subject.study
    return Searcher(prepared.space, prepared.costs, study.search, prepared.seeds, record.dense, study.study.seed)


def _plan(
    prepared: Prepared, record: StudyRecord, launch: LaunchSettings, target: int, artifacts: ArtifactStore
) -> Plan:
    study = prepared.subject.study
    return Plan(
        target=target,
        rungs=Rungs(study.search.rungs, record.budget),
        rng_seed=study.study.seed,
        constraints=study.search.constraints,
        judge=partial(_judge, prepared, record.dense),
        max_retries=launch.max_retries,
        artifacts=artifacts,
        patience=launch.store_patience,
    )


def _judge(prepared: Prepared, dense: Mapping[str, float], point: Point) -> Outcome | None:
    bounds = prepared.subject.study.search.constraints
    return check_counted(bounds, prepared.costs.cost(point), dense) if bounds else None


def _sweep(store: Store, study: StudyRecord, artifacts: ArtifactStore) -> None:
    """Remove files that no trial of the store knows: left by a process that was killed.

    The files are listed first: one that another driver adds meanwhile is none of them.
    """
    names = artifacts.names()
    if not names or store.claims(study):
        return
    known = {artifact.location for row in store.trials(study) for artifact in row.artifacts}
    for name in names:
        if name not in known and name.endswith(_LEFT_BY_TRIALS):
            artifacts.delete(name)


def _report_on_test(store: Store, study: StudyRecord, workbench: Workbench, artifacts: ArtifactStore) -> None:
    """Measure the front's members on the test data, each once, after the search."""
    for row in store.front(study):
        missing = [name for name in study.dense if name.startswith("test_") and name not in row.measurements]
        if missing:
            store.amend(study, row.number, test_measurements(workbench.task, _model(workbench, row, artifacts)))


def _model(workbench: Workbench, row: TrialRow, artifacts: ArtifactStore) -> nn.Module:
    found = next((each for each in row.artifacts if each.kind == "model"), None)
    if found is None:
        raise ArtifactError(f"A member of the front has its model kept; trial {row.number} has none. Run `check`.")
    state = from_safetensors(artifacts.read(found))
    return build(workbench.dense, row.point, workbench.layers, workbench.plugins, state)
