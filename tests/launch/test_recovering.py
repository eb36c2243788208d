"""Trials whose process dies: the driver finds the newest checkpoint of their own, and removes them in the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rank_search.artifacts import ArtifactStore, Recoveries, Recovery, Tenant
from rank_search.errors import ArtifactError, CheckpointError, LaunchError
from rank_search.launch import InProcess, Job, SearchDriver
from rank_search.point import Artifact, Outcome, State
from rank_search.search import Rungs
from rank_search.search.rungs import RungSettings
from rank_search.store import Store, StudyRecord
from tests.launch.parts import a_point, better_and_better, by_number, dead_worker

Drive = Callable[..., SearchDriver]
KEY = a_point(0).key


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    """That of the drivers."""
    return ArtifactStore(tmp_path / "artifacts")


def epochs_of(artifacts: ArtifactStore) -> list[float]:
    """Of the recovery checkpoints that are there."""
    return sorted(each.epochs for name in artifacts.names() if (each := Recovery.named(name)))


class Dying:
    """Runs jobs whose process dies in the tries that are listed, each after it has got so far."""

    def __init__(self, artifacts: ArtifactStore, *reached: float | None, dies: int) -> None:
        self.artifacts, self.reached, self.dies = artifacts, reached, dies
        self.jobs: list[Job] = []
        self.there: list[list[float]] = []

    @property
    def began(self) -> list[float]:
        """After how many epochs each try began."""
        return [0.0 if job.checkpoint is None else known(job.checkpoint).epochs for job in self.jobs]

    def __call__(self, job: Job) -> Outcome:
        self.jobs.append(job)
        self.there.append(epochs_of(self.artifacts))
        tries = len(self.jobs)
        if tries <= len(self.reached) and (epochs := self.reached[tries - 1]) is not None:
            Recoveries(self.artifacts, job.point.key, job.mark).keep(b"so far", job.attempt, epochs)
        if tries <= self.dies:
            raise LaunchError("its worker died")
        return better_and_better(job)


def known(checkpoint: Artifact) -> Recovery:
    found = Recovery.named(checkpoint.location)
    assert found is not None
    return found


def test_it_goes_on_from_the_newest_and_leaves_none(
    drive: Drive, artifacts: ArtifactStore, store: Store, study: StudyRecord, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Dying(artifacts, 0.25, 0.5, dies=2)
    with caplog.at_level(logging.INFO, "rank_search"):
        drive(InProcess(runner), target=1, checkpoint_seconds=60.0, max_retries=5).run()
    assert runner.began == [0.0, 0.25, 0.5]
    assert runner.there == [[], [0.25], [0.5]]
    assert artifacts.names() == []
    (row,) = store.trials(study)
    assert (row.state, row.attempt) == (State.COMPLETE, 3)
    said = [vars(each) for each in caplog.records if each.getMessage() == "trial goes on"]
    assert [(each["trial"], each["attempt"], each["epoch"]) for each in said] == [(0, 2, 0.25), (0, 3, 0.5)]


@pytest.mark.parametrize("changes", [{}, {"budget": 0.0}])
def test_without_minutes_or_training_none_is_kept(
    drive: Drive, artifacts: ArtifactStore, study: StudyRecord, changes: dict[str, Any]
) -> None:
    jobs: list[Job] = []

    def run(job: Job) -> Outcome:
        jobs.append(job)
        return better_and_better(job)

    seconds = 60.0 if changes else 0.0
    rungs = Rungs(None, 0.0) if changes else Rungs(None, 1.0)
    drive(InProcess(run), target=2, checkpoint_seconds=seconds, rungs=rungs, study=replace(study, **changes)).run()
    assert {(bool(job.mark), job.checkpoint_seconds) for job in jobs} == {(not changes, 0.0)}


def test_a_try_that_got_further_does_not_count(
    drive: Drive, artifacts: ArtifactStore, store: Store, study: StudyRecord
) -> None:
    """One retry is allowed: four deaths on the way are not too many, two at the same place are."""
    runner = Dying(artifacts, 0.1, 0.2, 0.3, 0.4, dies=4)
    drive(InProcess(runner), target=1, checkpoint_seconds=60.0, max_retries=1).run()
    assert [row.state for row in store.trials(study)] == [State.COMPLETE]
    stuck = Dying(artifacts, 0.1, None, None, dies=99)
    drive(InProcess(stuck), target=2, checkpoint_seconds=60.0, max_retries=1).run()
    assert stuck.began == [0.0, 0.1, 0.1]
    assert [row.state for row in by_number(store, study)] == [State.COMPLETE, State.FAILED]
    assert artifacts.names() == []


def leave(artifacts: ArtifactStore, job: Job, epochs: float, *, mark: str = "", attempt: int = 1) -> str:
    Recoveries(artifacts, KEY, mark or job.mark).keep(f"after {epochs}".encode(), attempt, epochs)
    return next(name for name in artifacts.names() if (each := Recovery.named(name)) and each.epochs == epochs)


@pytest.fixture
def own(drive: Drive, store: Store, study: StudyRecord, artifacts: ArtifactStore) -> Job:
    """The job of the first trial, as a driver would give it out."""
    jobs: list[Job] = []

    def stop(job: Job) -> Outcome:
        jobs.append(job)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(InProcess(stop), target=1, made_from="this", checkpoint_seconds=60.0).run()
    return jobs[0]


def resumed(drive: Drive, artifacts: ArtifactStore, **changes: Any) -> tuple[list[float], list[list[float]]]:
    """Where a driver that comes later begins, and which checkpoints are there then."""
    runner = Dying(artifacts, dies=0)
    given = {"target": 1, "made_from": "this", "checkpoint_seconds": 60.0, **changes}
    drive(InProcess(runner), **given).run()
    return runner.began, runner.there


def test_the_next_driver_takes_the_newest_of_the_trials_own(drive: Drive, artifacts: ArtifactStore, own: Job) -> None:
    for epochs in (0.5, 0.25, 0.75):
        leave(artifacts, own, epochs)
    leave(artifacts, own, 0.9, mark="another")
    other = artifacts.write("recovery", a_point(7).key, f".{own.mark}.1.0.3.recovery", b"of another point")
    model = artifacts.write("model", KEY, ".safetensors", b"no checkpoint")
    assert resumed(drive, artifacts) == ([0.75], [[0.3, 0.75]])
    assert set(artifacts.names()) == {other.location, model.location}


def test_one_that_was_left_is_gone_on_with_where_no_more_are_kept(
    drive: Drive, artifacts: ArtifactStore, own: Job
) -> None:
    leave(artifacts, own, 0.5)
    assert resumed(drive, artifacts, checkpoint_seconds=0.0) == ([0.5], [[0.5]])
    assert artifacts.names() == []


@pytest.mark.parametrize(
    "damage", [lambda data: data[:3], lambda data: b"", lambda data: data[:-1] + b"X"], ids=["half", "empty", "changed"]
)
def test_one_that_is_damaged_is_passed_over(
    drive: Drive, artifacts: ArtifactStore, own: Job, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    leave(artifacts, own, 0.25)
    file = tmp_path / "artifacts" / leave(artifacts, own, 0.5)
    file.write_bytes(damage(file.read_bytes()))
    assert resumed(drive, artifacts) == ([0.25], [[0.25]])
    assert artifacts.names() == []


@pytest.mark.parametrize("changes", [{"made_from": "another version"}, {"rng_seed": 1}])
def test_one_of_another_version_or_seed_is_removed(
    drive: Drive, artifacts: ArtifactStore, own: Job, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    leave(artifacts, own, 0.5)
    with caplog.at_level(logging.WARNING, "rank_search"):
        assert resumed(drive, artifacts, **changes) == ([0.0], [[]])
    assert "is damaged, or of other code or settings" in caplog.text


def test_a_trial_that_is_claimed_for_the_first_time_looks_for_none(
    drive: Drive, artifacts: ArtifactStore, own: Job
) -> None:
    """Only what may have been in flight is looked for: a place for files may be slow to list."""
    drive(InProcess(better_and_better), target=1).run()
    listed = 0

    class Counted(ArtifactStore):  # type: ignore[misc]
        def names(self) -> list[str]:
            nonlocal listed
            listed += 1
            return super().names()

    runner = Dying(artifacts, dies=0)
    drive(InProcess(runner), target=4, checkpoint_seconds=60.0, artifacts=Counted(artifacts.location)).run()
    assert (len(runner.jobs), listed) == (3, 0)


@pytest.mark.parametrize(("attempt", "began"), [(3, [0.5]), (2, [])])
def test_deaths_before_count_from_the_checkpoint(
    drive: Drive, artifacts: ArtifactStore, own: Job, store: Store, attempt: int, began: list[float]
) -> None:
    """Four tries have died by now, under drivers that died with them; two may since the one that got furthest."""
    for _ in range(4):
        assert store.take_over(store.study("study"), dead_worker(), lambda claim: True)
    leave(artifacts, own, 0.5, attempt=attempt)
    assert resumed(drive, artifacts, max_retries=1)[0] == began
    (row,) = store.trials("study")
    assert (row.attempt, row.state) == (5, State.COMPLETE if began else State.FAILED)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "beside another store"])
def test_one_that_cannot_be_gone_on_with_is_left_for_good(
    drive: Drive, artifacts: ArtifactStore, own: Job, store: Store, study: StudyRecord, shared: bool
) -> None:
    """Where another store uses the place too, the file stays there."""
    leave(artifacts, own, 0.5)
    if shared:
        ArtifactStore(artifacts.location, Tenant("other", "other")).move_in()
    began: list[float] = []

    def run(job: Job) -> Outcome:
        began.append(0.0 if job.checkpoint is None else known(job.checkpoint).epochs)
        if job.checkpoint is not None:
            raise CheckpointError("a pass has fewer batches now")
        return better_and_better(job)

    drive(InProcess(run), target=1, made_from="this", checkpoint_seconds=60.0).run()
    assert began == [0.5, 0.0]
    assert [row.state for row in store.trials(study)] == [State.COMPLETE]
    assert epochs_of(artifacts) == ([0.5] if shared else [])


def test_a_full_place_for_files_costs_no_epoch(
    drive: Drive, artifacts: ArtifactStore, store: Store, study: StudyRecord
) -> None:
    """The model could not be written after all of the training; the checkpoint before that could."""
    began: list[float] = []

    def run(job: Job) -> Outcome:
        began.append(0.0 if job.checkpoint is None else known(job.checkpoint).epochs)
        if job.checkpoint is None:
            Recoveries(artifacts, job.point.key, job.mark).keep(b"", job.attempt, 0.9)
            raise ArtifactError("no space left")
        return better_and_better(job)

    drive(InProcess(run), target=1, checkpoint_seconds=60.0).run()
    assert began == [0.0, 0.9]


def test_a_trial_that_fails_leaves_none(drive: Drive, artifacts: ArtifactStore, own: Job) -> None:
    leave(artifacts, own, 0.5)

    def fail(job: Job) -> Outcome:
        return Outcome(State.FAILED, reason="by itself")

    drive(InProcess(fail), target=1, made_from="this", checkpoint_seconds=60.0).run()
    assert artifacts.names() == []


def test_those_of_a_larger_budget_stay(artifacts: ArtifactStore, own: Job) -> None:
    """Another driver, which had taken the trial over, has promoted it meanwhile."""
    first, second = leave(artifacts, own, 1.0), leave(artifacts, own, 2.5)
    recoveries = Recoveries(artifacts, KEY, own.mark)
    found = recoveries.newest(budget=2.5)
    assert found is not None
    assert found[0].name == second
    assert artifacts.names() == [second] != [first]
    leave(artifacts, own, 1.0)
    found = recoveries.newest(budget=1.5)
    assert found is not None
    assert found[0].epochs == 1.0
    recoveries.drop(budget=1.0)
    assert artifacts.names() == [second]


def test_on_the_way_to_a_rung(drive: Drive, artifacts: ArtifactStore, store: Store, study: StudyRecord) -> None:
    """A promoted trial whose process dies goes on from the newer of its two checkpoints."""
    study = replace(study, budget=3.0)
    began: list[tuple[int, float, str]] = []

    def run(job: Job) -> Outcome:
        began.append((job.number, job.budget, "" if job.checkpoint is None else job.checkpoint.kind))
        if job.budget == 3.0 and job.attempt == 1:
            Recoveries(artifacts, job.point.key, job.mark).keep(b"", job.attempt, 1.5)
            raise LaunchError("its worker died")
        left = artifacts.write("checkpoint", job.point.key, ".checkpoint", str(job.number).encode())
        return replace(better_and_better(job), artifacts=(left,) if job.budget == 1.0 else ())

    rungs = Rungs(RungSettings(first=1), 3.0)
    drive(InProcess(run), target=3, rungs=rungs, study=study, checkpoint_seconds=60.0).run()
    promoted = [each for each in began if each[1] == 3.0]
    assert promoted[:2] == [(promoted[0][0], 3.0, "checkpoint"), (promoted[0][0], 3.0, "recovery")]
    assert epochs_of(artifacts) == []
