"""Wires the rooms along the path of the data, and nothing else."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from rank_search.artifacts import ArtifactStore, artifacts_at
from rank_search.basics import PART
from rank_search.errors import ArtifactError, LaunchError
from rank_search.launch import Executor, Job, LaunchSettings, SearchDriver, SearchPlan, TrialCallback, all_of
from rank_search.observe import Report, going_on
from rank_search.point import Outcome, Point, State
from rank_search.run.join import forms_of, join_study
from rank_search.run.local import on_this_machine
from rank_search.run.preparation import Prepared, with_forms
from rank_search.run.ray_cluster import PROBE, on_cluster
from rank_search.search import Rungs, Searcher, Source, at_the_bad_end, check_counted, require_rungs_fit
from rank_search.store import Front, Store, StudyRecord, TrialRow, artifact_folder
from rank_search.study import Problem, Study, store_of
from rank_search.tasks import Task, has_test
from rank_search.training import check_task
from rank_search.trials import TrialContext, on_test, test_measurements, threads

_LEAST_TEST: Final = 60.0
_log = logging.getLogger(__name__)

_LEFT_BY_TRIALS = (".safetensors", ".coded", ".checkpoint", PROBE, PART)

ExecutorFor = Callable[[ArtifactStore, Mapping[str, float]], Executor]
"""Of the place for artifacts, and what the study has measured of the dense model."""

_steps: Final = logging.getLogger("rank_search.steps")


@dataclass(frozen=True)
class Result:
    """A study that has run.

    Attributes:
        store: where it is kept; `shown` is the same without credentials.
        complete: whether it reached its number of trials.
        added: how many trials this run added.
        untested: in words, what was not measured on the test data, and why; empty if all was.
        all_failed: why the last trial failed, if every one of the study has; empty otherwise.
    """

    study: StudyRecord
    store: str = field(repr=False)  # it may hold a password
    shown: str
    front: Front
    complete: bool
    added: int
    untested: str = ""
    all_failed: str = ""


def run_study(
    study: Study,
    *,
    task: Task | None = None,
    store: str | None = None,
    trials: int | None = None,
    workers: int | None = None,
    report: Report = lambda progress: None,
    accept_changes: bool = False,
) -> Result:
    """Run a study, or go on with it, until it has its number of finished trials in all.

    Args:
        task: the task, when it is at hand (then the trials run in this process, or on Ray); otherwise the study
            file's.
        store, trials, workers: instead of the study file's.
        report: told after every trial how far the search is.
        accept_changes: go on although the code of the task or of a plugin has changed since the study began.

    Raises:
        RankSearchError: something of the user's cannot be used, or the store has another study of that name.
    """
    with at_work(study.launched({"workers": workers}), task, store or store_of(study).url) as work:
        record = work.join(accept_changes)
        _warn_of_directions(record)
        searcher = _searcher(with_forms(work.prepared, forms_of(record)), record)
        complete, added = work.drive(record, searcher, trials or study.study.trials, report)
        record = work.store.study(record.name)
        front = work.store.front(record)
        untested, failed = work.untested(record, front), "" if front else _all_failed(work.store.trials(record))
        return Result(record, work.location, work.store.location, front, complete, added, untested, failed)


@dataclass(frozen=True)
class OpenStudy:
    """A study ready to be worked on: all that is made once before its first trial, and its open store.

    Attributes:
        location: of the store, as given.
    """

    prepared: Prepared
    workbench: TrialContext
    executor_for: ExecutorFor
    store: Store
    location: str

    def join(self, accept_changes: bool = False) -> StudyRecord:
        """The study as the store has it, begun if it is not there."""
        return join_study(self.store, self.location, self.prepared, self.workbench, accept_changes)

    def drive(self, record: StudyRecord, source: Source, target: int, report: Report) -> tuple[bool, int]:
        """Try the source's points until so many trials have finished in all, by whomever; then `finish`.

        Returns whether they have (if not, the source had no further points), and how many this driver added.
        """
        (artifacts, before), launch = self._artifacts(record), self.prepared.problem.study.launch
        plan = _plan(self.prepared, record, target, artifacts)
        watchers = _watchers(record.name, launch)
        with closing(self.executor_for(artifacts, record.dense)) as executor:
            driver = SearchDriver(self.store, record, source, executor, plan, report, watchers)
            complete = driver.run()
            searched = driver.progress()
            tell = going_on(report)
            self._test(record, executor, lambda left: tell(replace(searched, untested=left)), capped=True)
        _sweep(self.store, record, artifacts, before)
        return complete, driver.done_here

    def finish(self, record: StudyRecord) -> None:
        """Measure the dense model and the front's members on the test data, and leave everything tidy."""
        artifacts, before = self._artifacts(record)
        with closing(self.executor_for(artifacts, record.dense)) as executor:
            self._test(record, executor, lambda left: None, capped=False)
        _sweep(self.store, record, artifacts, before)

    def untested(self, record: StudyRecord, front: Front) -> str:
        """What was not measured on the test data, and why, in words; empty if all was, or nothing was to be."""
        settings = self.prepared.problem.study.study
        left = [row for row in front if not on_test(row.measurements)]
        if not left or settings.test == "none":
            return ""
        if not has_test(self.prepared.problem.task):
            return "The task has no test data: nothing is reported but the selection data, which the search has seen."
        why = (
            "as [study] test says"
            if settings.test == "asked"
            else f"which would take longer than [study] test_share = {settings.test_share:g} of the search"
        )
        return (
            f"{len(left)} of {len(front)} members of the front are not measured on the test data, {why}; "
            "rank-search run STUDY.toml --test measures them."
        )

    def _test(self, record: StudyRecord, executor: Executor, report: Callable[[int], None], *, capped: bool) -> None:
        """Measure the dense model and each member of the front on the test data, once, after the search.

        Args:
            report: told how many members are left.
            capped: whether it ends when its share of the time is used up.
        """
        problem = self.prepared.problem
        if problem.study.study.test != "front" or not has_test(problem.task):
            return
        begun, allowed = time.monotonic(), self._time_to_test(record, executor) if capped else math.inf
        record = _dense_on_test(self.store, record, problem)
        jobs = [_test_job(row) for row in _spread(self.store.front(record)) if _lacks_test(record, row)]
        launch = problem.study.launch
        for done, finished in enumerate(all_of(executor, jobs, launch.max_retries)):
            if finished.outcome.state is not State.COMPLETE:
                raise LaunchError(
                    f"Every member of the front is measured on the test data; trial {finished.job.number} was not: "
                    f"{finished.outcome.reason}. The search is complete; run the same command to measure it again, if "
                    "need be with a larger [launch] time_limit."
                )
            self.store.amend(record, finished.job.number, finished.outcome.measurements)
            report(len(jobs) - done - 1)
            if time.monotonic() - begun > allowed:
                return  # what has been handed out ends with the executor

    def _time_to_test(self, record: StudyRecord, executor: Executor) -> float:
        """Seconds: a share of what the trials took on as many workers; a minute at least."""
        spent = sum((row.finished - row.started).total_seconds() for row in self.store.trials(record))
        return max(_LEAST_TEST, self.prepared.problem.study.study.test_share * spent / max(1, executor.workers))

    def _artifacts(self, record: StudyRecord) -> tuple[ArtifactStore, Set[str]]:
        """Where the study's files are, and those that are there before this run makes any."""
        default = artifact_folder(self.location, record.folder)
        artifacts = artifacts_at(record.artifacts, default, self.store.tenant)
        try:
            if others := artifacts.move_in():
                _log.warning(
                    "The files of study %s in %s are used by another store too, %s: none is deleted.",
                    record.name,
                    artifacts.location,
                    ", ".join(others),
                )
            return artifacts, set(artifacts.names())
        except ArtifactError as error:  # a trial that cannot leave its files will tell
            _log.warning("%s", error)
            return artifacts, set()


@contextmanager
def at_work(study: Study, task: Task | None, location: str) -> Iterator[OpenStudy]:
    """Make the study ready and open its store, for as long as it is worked on."""
    launch = study.launch
    require_rungs_fit(study.search.rungs, study.training.epochs)
    own_threads = launch.torch_threads if task is None else torch.get_num_threads()
    with threads(own_threads), _place(study, task) as (prepared, workbench, executor_for):
        _steps.info("Trying one training step")
        check_task(workbench.task, workbench.dense, workbench.training)
        with Store.open(location, create=True, patience=launch.store_patience) as store:
            yield OpenStudy(prepared, workbench, executor_for, store, location)


def _place(study: Study, task: Task | None) -> AbstractContextManager[tuple[Prepared, TrialContext, ExecutorFor]]:
    """All that is made once before the first trial, and the way to where trials run."""
    return on_cluster(study, task, study.launch) if study.launch.on == "ray" else on_this_machine(study, task)


def _watchers(study: str, launch: LaunchSettings) -> list[TrialCallback]:
    """Who else is told of the trials."""
    watchers: list[TrialCallback] = []
    if launch.tensorboard:
        from rank_search.launch import TensorBoard

        watchers.append(TensorBoard(Path(launch.tensorboard) / study))
    if launch.on == "ray":
        from rank_search.launch import RayMetrics

        watchers.append(RayMetrics(study))
    return watchers


# ---- around the search -----------------------------------------------------------------------------------


def _searcher(prepared: Prepared, record: StudyRecord) -> Searcher:
    study = prepared.problem.study
    return Searcher(
        prepared.space, prepared.costs, study.search, prepared.seeds, record.dense, study.study.seed, prepared.options
    )


def _plan(prepared: Prepared, record: StudyRecord, target: int, artifacts: ArtifactStore) -> SearchPlan:
    study = prepared.problem.study
    return SearchPlan(
        target=target,
        rungs=Rungs(study.search.rungs, record.budget),
        rng_seed=study.study.seed,
        constraints=study.search.constraints,
        judge=partial(_judge, prepared, record.dense),
        max_retries=study.launch.max_retries,
        artifacts=artifacts,
        patience=study.launch.store_patience,
        max_failures=study.launch.max_failures,
    )


def _judge(prepared: Prepared, dense: Mapping[str, float], point: Point) -> Outcome | None:
    bounds = prepared.problem.study.search.constraints
    return check_counted(bounds, prepared.costs.cost(point), dense) if bounds else None


def _sweep(store: Store, study: StudyRecord, artifacts: ArtifactStore, before: Set[str]) -> None:
    """Remove files that no trial of the store knows: left by a process that was killed before this run began.

    A study of older stores may share its folder with another one, of which this store knows nothing: nothing is
    removed there.
    """
    if not before or not study.uid or store.claims(study):
        return
    known = {artifact.location for row in store.trials(study) for artifact in row.artifacts}
    for name in sorted(before - known):
        if name.endswith(_LEFT_BY_TRIALS):
            artifacts.discard(name)


def _dense_on_test(store: Store, study: StudyRecord, problem: Problem) -> StudyRecord:
    """Measure the dense model on the test data, if no driver has done so: after the search, which never sees it."""
    study = store.study(study.name)
    if on_test(study.dense):
        return study
    return store.amend_dense(study, test_measurements(problem.task, problem.original))


def _lacks_test(study: StudyRecord, row: TrialRow) -> bool:
    return bool(on_test(study.dense).keys() - row.measurements)


def _spread(front: Front) -> list[TrialRow]:
    """The knee, and then members from all over the front: whatever the time allows says most about the whole."""
    knee = [front.knee()] if front else []
    others = sorted(enumerate(front), key=lambda each: f"{each[0]:b}"[::-1])
    return [*knee, *(row for _, row in others if row not in knee)]


def _warn_of_directions(record: StudyRecord) -> None:
    for each in record.objectives:
        if each.name in record.dense and (said := at_the_bad_end(each, record.dense[each.name])):
            _log.warning("%s", said)


def _all_failed(rows: Sequence[TrialRow]) -> str:
    """Why the last of the trials failed, if all have."""
    return rows[-1].reason if rows and all(row.state is State.FAILED for row in rows) else ""


def _test_job(row: TrialRow) -> Job:
    found = next((each for each in row.artifacts if each.kind == "model"), None)
    if found is None:
        raise ArtifactError(f"A member of the front has its model kept; trial {row.number} has none. Run `check`.")
    return Job(row.number, row.point, row.rng_seed, row.budget, trained=found)
