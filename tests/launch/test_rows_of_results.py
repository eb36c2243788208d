"""A driver whose trials have several results: counted once each, told one by one, files kept as for any trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rank_search.artifacts import ArtifactStore
from rank_search.launch import InProcess, Job, SearchDriver
from rank_search.observe import SearchProgress, TrialCallback
from rank_search.point import Artifact, Bound, Cut, Execution, Outcome, State
from rank_search.search import Rungs
from rank_search.search.rungs import RungSettings
from rank_search.store import Store, StudyRecord, TrialRow
from tests.launch.parts import Counting, a_point, better_and_better, by_number, complete, dead_worker


def cuts_of(job: Job, *artifacts: Artifact) -> tuple[Cut, ...]:
    """Two cuts, of which the second is on the front of a single trial."""
    rank = int(job.point.layers["layer"].values["rank"])
    return (
        Cut(a_point(10_000 + 2 * rank), complete(0.9, 11.0, *artifacts[:1])),
        Cut(a_point(10_001 + 2 * rank), complete(0.9, 8.0 - rank, *artifacts[1:])),
    )


def with_cuts(job: Job) -> Outcome:
    return replace(better_and_better(job), row=cuts_of(job))


class Watching(TrialCallback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def recorded(self, row: TrialRow) -> None:
        self.seen.append(row.number)

    def progressed(self, progress: SearchProgress) -> None:
        """Nothing: it listens to trials."""

    def close(self) -> None:
        """Nothing to close."""


def test_trials_are_counted_by_trainings(store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]) -> None:
    told: list[SearchProgress] = []
    searcher, ran = Counting(), list[int]()

    def run(job: Job) -> Outcome:
        ran.append(job.number)
        return with_cuts(job)

    made = drive(InProcess(run), searcher, target=3, report=told.append)
    assert made.run() is True
    assert ran == [0, 3, 6]
    rows = by_number(store, study)
    assert [(row.number, row.cut_of) for row in rows] == [
        *((0, None), (1, 0), (2, 0), (3, None), (4, 3), (5, 3), (6, None), (7, 6), (8, 6))
    ]
    assert made.done_here == 3
    assert [each.finished for each in told] == [0, 1, 2, 3]
    assert told[-1].states == {State.COMPLETE: 3}
    assert {row.number for row in told[-1].front} == {row.number for row in store.front(study)} == {6, 8}
    assert searcher.known == {row.point.key: State.COMPLETE for row in rows}
    assert drive(InProcess(run), target=3).run() is True
    assert ran == [0, 3, 6], "there is nothing left to do"


def test_it_goes_on_where_it_was(store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]) -> None:
    drive(InProcess(with_cuts), target=2).run()
    drive(InProcess(with_cuts), target=4).run()
    halves = [(row.number, row.cut_of, row.point, row.rng_seed) for row in by_number(store, study)]
    other = store.join(replace(study, name="other", id=0))
    drive(InProcess(with_cuts), study=other, target=4).run()
    assert halves == [(row.number, row.cut_of, row.point, row.rng_seed) for row in by_number(store, other)]


def test_callbacks_hear_of_each_result(drive: Callable[..., SearchDriver]) -> None:
    watching = Watching()
    drive(InProcess(with_cuts), target=2, callbacks=[watching]).run()
    assert watching.seen == [0, 1, 2, 3, 4, 5]


def test_a_cut_that_breaks_a_constraint_is_infeasible(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    drive(InProcess(with_cuts), target=1, constraints=(Bound.parse("macs <= 10"),)).run()
    assert [row.state for row in by_number(store, study)] == [State.COMPLETE, State.INFEASIBLE, State.COMPLETE]
    assert "macs" in store.trial(study, 1).reason


def test_a_trial_that_was_stopped_has_no_row(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    rungs = Rungs(RungSettings(first=0.4, factor=2), 1.0)
    drive(InProcess(with_cuts), target=9, rungs=rungs).run()
    rows = by_number(store, study)
    stopped = {row.number for row in rows if row.state is State.STOPPED}
    finished = {row.number for row in rows if row.state is State.COMPLETE and row.cut_of is None}
    assert stopped
    assert finished
    assert {row.cut_of for row in rows if row.cut_of is not None} == finished
    assert len(stopped | finished) == 9


def test_files_of_cuts_stay_with_those_on_the_front(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], tmp_path: Path
) -> None:
    folder = ArtifactStore(tmp_path / "artifacts")

    def run(job: Job) -> Outcome:
        files = [folder.write("model", f"{job.number}-{place}", ".safetensors", b"x") for place in range(2)]
        return replace(better_and_better(job), row=cuts_of(job, *files))

    theirs = store.claim(study, a_point(10_003), dead_worker(), {"label": "theirs"})
    assert theirs is not None
    drive(InProcess(run), target=3, judge=lambda point: None if point != theirs.point else complete(0.5, 5.0)).run()
    assert store.trial(study, 0).point == theirs.point
    kept = {each.location for row in store.front(study) for each in row.artifacts}
    assert set(folder.names()) == kept
    assert store.check(study, folder) == []


def test_files_of_a_cut_whose_point_another_driver_has_tried_meanwhile_go(
    store: Store,
    study: StudyRecord,
    drive: Callable[..., SearchDriver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nobody reads the whole study for it."""
    read, trials = [], Store.trials

    def watched(self: Store, study: StudyRecord | str, after: int = 0) -> list[TrialRow]:
        read.append(trials(self, study, after))
        return read[-1]

    monkeypatch.setattr(Store, "trials", watched)
    folder = ArtifactStore(tmp_path / "artifacts")

    def run(job: Job) -> Outcome:
        files = [folder.write("model", f"{job.number}-{place}", ".safetensors", b"x") for place in range(2)]
        row = cuts_of(job, *files)
        theirs = store.claim(study, row[1].point, "elsewhere", {"label": "theirs"})
        assert theirs is not None
        model = folder.write("model", "theirs", ".safetensors", b"y")
        assert store.record(study, theirs, complete(0.1, 1.0, model), Execution(0, store.now(), store.now()))
        return replace(better_and_better(job), row=row)

    drive(InProcess(run), target=2).run()
    numbers = [row.number for rows in read for row in rows]
    assert len(numbers) == len(set(numbers))
    (member,) = store.front(study)
    assert set(folder.names()) == {each.location for each in member.artifacts}
    assert store.check(study, folder) == []
