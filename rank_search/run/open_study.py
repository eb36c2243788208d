"""A study that is worked on: all that is made once, its open store, and the driver of its search."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from rank_search.artifacts import RECOVERY, ArtifactStore, artifacts_at
from rank_search.basics import PART
from rank_search.errors import ArtifactError, PlaceError
from rank_search.launch import LaunchSettings, SearchDriver, SearchPlan
from rank_search.observe import Observers, Report, TrialCallback, UnbrokenReport
from rank_search.point import Outcome, Point
from rank_search.run.front_on_test import measure_on_test
from rank_search.run.join import join_study
from rank_search.run.kept_statistics import check_data
from rank_search.run.local import on_this_machine
from rank_search.run.preparation import Prepared
from rank_search.run.ray_cluster import PROBE, on_cluster
from rank_search.run.worker import ExecutorFor, Workplace
from rank_search.search import Rungs, Source, check_counted, require_rungs_fit
from rank_search.store import Store, StudyRecord, artifact_folder
from rank_search.study import Study
from rank_search.tasks import Task
from rank_search.training import check_task, software
from rank_search.trials import TrialContext, threads

_LEFT_BY_TRIALS: Final = (".safetensors", ".coded", ".checkpoint", RECOVERY, PROBE, PART)
_log: Final = logging.getLogger(__name__)
_steps: Final = logging.getLogger("rank_search.steps")


@dataclass(frozen=True)
class OpenStudy:
    """A study ready to be worked on: all that is made once before its first trial, and its open store.

    Attributes:
        location: of the store, as given.
    """

    prepared: Prepared
    context: TrialContext
    executor_for: ExecutorFor
    store: Store
    location: str

    def join(self, accept_changes: bool = False) -> StudyRecord:
        """The study as the store has it, begun if it is not there."""
        return join_study(self.store, self.location, self.prepared, self.context, accept_changes)

    def drive(self, record: StudyRecord, source: Source, target: int, report: Report) -> tuple[bool, int]:
        """Try the source's points until that many trials have finished in all, by any driver; then `finish`.

        Returns whether they have (if not, the source had no further points), and how many this driver added.
        """
        (artifacts, before), problem = self._artifacts(record), self.prepared.problem
        plan = _plan(self.prepared, record, target, artifacts)
        observers = Observers(report, _callbacks(record.name, problem.study.launch))
        with closing(self.executor_for(artifacts, record.dense)) as executor:
            driver = SearchDriver(self.store, record, source, executor, plan, observers)
            complete = driver.run()
            searched, tell = driver.progress(), UnbrokenReport(report)
            measure_on_test(
                self.store, record, problem, executor, lambda left: tell(replace(searched, untested=left)), capped=True
            )
        _sweep(self.store, record, artifacts, before | driver.undeleted)
        return complete, driver.done_here

    def finish(self, record: StudyRecord) -> None:
        """Measure the dense model and the front's members on the test data, and leave everything tidy."""
        artifacts, before = self._artifacts(record)
        with closing(self.executor_for(artifacts, record.dense)) as executor:
            measure_on_test(self.store, record, self.prepared.problem, executor, capped=False)
        _sweep(self.store, record, artifacts, before)

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
        except PlaceError:
            raise
        except ArtifactError as error:  # a trial that cannot leave its files will tell
            _log.warning("%s", error)
            return artifacts, set()


@contextmanager
def at_work(study: Study, task: Task | None, location: str) -> Iterator[OpenStudy]:
    """Make the study ready and open its store, for as long as it is worked on."""
    launch = study.launch
    require_rungs_fit(study.search.rungs, study.training.epochs)
    own_threads = launch.torch_threads if task is None else torch.get_num_threads()
    with threads(own_threads), _place(study, task) as (prepared, context, executor_for):
        _steps.info("Trying one training step")
        check_task(context.task, context.dense, context.training)
        check_data(prepared.problem)
        with Store.open(location, create=True, patience=launch.store_patience) as store:
            yield OpenStudy(prepared, context, executor_for, store, location)


def _place(study: Study, task: Task | None) -> AbstractContextManager[Workplace]:
    return on_cluster(study, task, study.launch) if study.launch.on == "ray" else on_this_machine(study, task)


def _callbacks(study: str, launch: LaunchSettings) -> list[TrialCallback]:
    """Who else is told of the trials."""
    callbacks: list[TrialCallback] = []
    if launch.tensorboard:
        from rank_search.observe import TensorBoard

        callbacks.append(TensorBoard(Path(launch.tensorboard) / study))
    if launch.on == "ray":
        from rank_search.observe import RayMetrics

        callbacks.append(RayMetrics(study))
    return callbacks


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
        made_from=_made_from(record),
        checkpoint_seconds=study.launch.checkpoint_seconds,
    )


def _made_from(record: StudyRecord) -> str:
    """A digest of what the study is made from, whatever it is called, and of the software."""
    parts = {key: value for key, value in record.fingerprint.items() if key != "study.name"}
    return hashlib.sha256(json.dumps([parts, software()], sort_keys=True).encode()).hexdigest()


def _judge(prepared: Prepared, dense: Mapping[str, float], point: Point) -> Outcome | None:
    bounds, costs = prepared.problem.study.search.constraints, prepared.costs
    refused = check_counted(bounds, costs.cost(point), dense) if bounds else None
    if refused is None or check_counted(bounds, costs.least(point), dense) is None:
        return None  # what training makes of it may keep them
    return refused


def _sweep(store: Store, study: StudyRecord, artifacts: ArtifactStore, left: Set[str]) -> None:
    """Remove files that no trial of the store knows, and that nobody is about to record.

    A study of older stores may share its folder with another one, of which this store knows nothing: nothing is
    removed there.

    Args:
        left: names of those that were there before this run began, some left by a process that was killed, and of
            those that this run could not delete.
    """
    if not left or not study.uid or store.claims(study):
        return
    known = {artifact.location for row in store.trials(study) for artifact in row.artifacts}
    try:
        for name in sorted(left - known):
            if name.endswith(_LEFT_BY_TRIALS):
                artifacts.discard(name)
    except ArtifactError as error:  # the search has succeeded; the next run tries again
        _log.warning("%s", error)
