"""The driver: who gets which trial, what is recorded, which files stay, and how it ends."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError, LaunchError, StoreAwayError, TaskError
from rank_search.launch import InProcess, Job, SearchDriver, claiming, driver, executors
from rank_search.launch import heartbeats as pulses
from rank_search.observe import SearchProgress, TrialCallback, status_of
from rank_search.point import Bound, Execution, Outcome, Point, State
from rank_search.search import Rungs, SearchTrial
from rank_search.search.rungs import RungSettings
from rank_search.store import Claim, Store, StudyRecord, TrialRow, moments
from tests.launch.parts import (
    ELSEWHERE,
    Counting,
    LastFirst,
    a_point,
    better_and_better,
    by_number,
    complete,
    dead_worker,
)

# ---- to the target ---------------------------------------------------------------------------------------


def test_a_driver_reaches_the_target_and_reports_its_progress(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    told: list[SearchProgress] = []
    executor = LastFirst(better_and_better)
    made = drive(executor, target=7, report=told.append)
    assert made.run() is True
    assert [row.number for row in by_number(store, study)] == list(range(7))
    assert store.claims(study) == []
    assert made.done_here == 7
    assert not executor.closed, "there is more for the workers to do"
    assert [each.finished for each in told] == list(range(8))
    assert [row.number for row in told[-1].front] == [6]
    assert told[-1].hypervolume == 0.0, "no member is better than the reference point in macs"
    assert told[0].seconds_left is None
    assert told[-1].seconds_left == 0


def test_a_driver_with_its_target_reached_runs_nothing(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    drive(target=4).run()
    again = drive(target=2)
    assert again.run() is True
    assert (again.done_here, len(by_number(store, study))) == (0, 4)


def test_a_driver_ends_when_the_space_is_exhausted(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    assert drive(LastFirst(better_and_better), Counting(points=4), target=9).run() is False
    assert len(by_number(store, study)) == 4
    assert drive(searcher=Counting(points=4), target=4).run() is True


def test_a_point_judged_beforehand_is_not_run(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    ran: list[int] = []

    def note(job: Job) -> Outcome:
        ran.append(job.number)
        return better_and_better(job)

    def judge(point: Point) -> Outcome | None:
        odd = point.layers["layer"].values["rank"] % 2
        return Outcome(State.INFEASIBLE, {"macs": 99.0}, "too many") if odd else None

    drive(InProcess(note), judge=judge, target=6).run()
    assert ran == [0, 2, 4]
    infeasible = [row for row in by_number(store, study) if row.state is State.INFEASIBLE]
    assert [(row.number, row.reason, row.measurements) for row in infeasible] == [
        (number, "too many", {"macs": 99.0}) for number in (1, 3, 5)
    ]


# ---- claims ----------------------------------------------------------------------------------------------


def test_the_claims_of_the_dead_come_first_under_their_numbers(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    lost = [store.claim(study, a_point(rank), dead_worker(), {"label": "lost"}) for rank in (700, 800)]
    drive(LastFirst(better_and_better), target=4).run()
    rows = by_number(store, study)
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert [row.point for row in rows[:2]] == [each.point for each in lost if each]
    assert [row.attempt for row in rows] == [2, 2, 1, 1]


def test_a_claim_without_a_heartbeat_is_taken_over(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.claim(study, a_point(700), ELSEWHERE, {"label": "lost"})
    monkeypatch.setattr(pulses, "EXPIRED", timedelta(seconds=-1))
    drive(target=1).run()
    (row,) = by_number(store, study)
    assert (row.point, row.attempt) == (a_point(700), 2)


def test_a_trial_that_ends_its_driver_each_time_is_given_up(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    store.claim(study, a_point(700), dead_worker(), {"label": "deadly"})
    assert store.take_over(study, dead_worker(), lambda claim: True)
    ran: list[Job] = []

    def note(job: Job) -> Outcome:
        ran.append(job)
        return better_and_better(job)

    drive(InProcess(note), target=2, max_retries=1).run()
    deadly, other = by_number(store, study)
    assert (deadly.state, deadly.reason) == (State.FAILED, "its process died in each of 2 tries")
    assert other.state is State.COMPLETE
    assert [job.number for job in ran] == [1]


def test_the_trials_of_another_driver_are_waited_for(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = store.claim(study, a_point(700), ELSEWHERE, {"label": "theirs"})
    assert theirs is not None
    waited = 0

    def they_finish(seconds: float) -> None:
        nonlocal waited
        waited += 1
        if waited == 3:
            now = datetime.now(UTC)
            store.record(study, theirs, complete(0.1, 1.0), Execution(0, now, now))

    monkeypatch.setattr(driver.time, "sleep", they_finish)
    told: list[SearchProgress] = []
    made = drive(target=3, report=told.append)
    assert made.run() is True
    assert (made.done_here, waited) == (2, 3)
    assert [row.number for row in by_number(store, study)] == [0, 1, 2]
    assert told[-1].finished == 3


def test_a_point_that_another_driver_has_is_not_tried_twice(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    class Overtaken(Counting):
        """Between asking and claiming, another driver claims the same point, once."""

        def ask(self, number: int) -> SearchTrial | None:
            asked = super().ask(number)
            if number == 1 and asked is not None and not self.withdrawn:
                claim = store.claim(study, asked.point, ELSEWHERE, {"label": "theirs"})
                now = datetime.now(UTC)
                store.record(study, claim, complete(0.9, 1.0), Execution(0, now, now))
            return asked

    searcher = Overtaken()
    drive(searcher=searcher, target=4).run()
    assert searcher.withdrawn == 1
    assert [row.number for row in by_number(store, study)] == [0, 1, 2, 3]
    assert {row.point.key for row in by_number(store, study)} == {a_point(rank).key for rank in range(4)}


def test_what_another_driver_has_finished_is_not_in_flight_elsewhere(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    theirs = store.claim(study, a_point(700), ELSEWHERE, {"label": "theirs"})
    assert theirs is not None

    def they_are_faster(job: Job) -> Outcome:
        if job.number == 2:
            now = datetime.now(UTC)
            store.record(study, theirs, complete(0.1, 1.0), Execution(0, now, now))
        return better_and_better(job)

    told: list[SearchProgress] = []
    drive(InProcess(they_are_faster), target=4, report=told.append).run()
    assert [each.elsewhere for each in told] == [1, 1, 0, 0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("out of luck")])
def test_an_interrupted_driver_gives_its_claims_up(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], error: BaseException
) -> None:
    def stop_at_three(job: Job) -> Outcome:
        if job.number == 3:
            raise error
        return better_and_better(job)

    executor = LastFirst(stop_at_three)
    with pytest.raises(type(error) if isinstance(error, Exception) else KeyboardInterrupt):
        drive(executor, target=9).run()
    assert executor.closed
    assert {claim.worker for claim in store.claims(study)} == {""}
    in_flight = [claim.number for claim in store.claims(study)]
    assert in_flight == [0, 1, 3]
    made = drive(target=4)
    assert made.run() is True
    assert [row.attempt for row in by_number(store, study)] == [1, 1, 1, 1]


def test_the_heartbeat_goes_on_during_a_trial(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulses, "HEARTBEAT", timedelta(milliseconds=1))

    beaten, real = threading.Event(), store.heartbeat

    def heartbeat(study: StudyRecord, held: list[Claim]) -> list[Claim]:
        assert real(study, held) == [], "no claim is lost"
        beaten.set()
        raise OSError("the store is away for a moment")

    def long(job: Job) -> Outcome:
        assert beaten.wait(60)
        beaten.clear()
        assert beaten.wait(60), "it goes on after an error"
        return better_and_better(job)

    monkeypatch.setattr(store, "heartbeat", heartbeat)
    drive(InProcess(long), target=1).run()
    assert len(by_number(store, study)) == 1


# ---- what is recorded, and which files stay --------------------------------------------------------------


def test_a_measured_constraint_makes_a_trial_infeasible(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], tmp_path: Path
) -> None:
    bounds = (Bound.parse("error <= 0.5 * dense"),)
    drive(InProcess(leaving_files(tmp_path)), constraints=bounds, target=5).run()
    rows = by_number(store, study)
    assert [row.state for row in rows] == [State.INFEASIBLE] * 3 + [State.COMPLETE] * 2
    assert rows[0].reason == "error <= 0.5 * dense does not hold: error is 1"
    assert rows[0].measurements == {"error": 1.0, "macs": 10.0}
    assert [row.number for row in rows if row.artifacts] == [4]
    assert files(tmp_path) == {"4.coded", "4.model"}


def leaving_files(folder: Path, outcome: Callable[[Job], Outcome] = better_and_better) -> Callable[[Job], Outcome]:
    def run(job: Job) -> Outcome:
        kinds = ("model", "coded")
        store = ArtifactStore(folder / "artifacts")
        kept = [store.write(kind, str(job.number), f".{kind}", b"x") for kind in kinds]
        return Outcome(State.COMPLETE, outcome(job).measurements, artifacts=tuple(kept))

    return run


def files(folder: Path) -> set[str]:
    """What lies there, each without its digest: `3.model`."""
    return {re.sub("-[0-9a-f]{16}", "", path.name) for path in (folder / "artifacts").iterdir()}


def test_artifacts_of_dominated_trials_are_removed(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], tmp_path: Path
) -> None:
    losses = [(0.5, 5.0), (0.6, 6.0), (0.4, 9.0), (0.3, 4.0), (0.9, 1.0), (0.3, 4.0)]
    executor = InProcess(leaving_files(tmp_path, lambda job: complete(*losses[job.number])))
    seen: list[set[str]] = []
    drive(executor, target=6, report=lambda progress: progress.finished and seen.append(files(tmp_path))).run()
    fronts = [{0}, {0}, {0, 2}, {3}, {3, 4}, {3, 4, 5}]
    assert seen == [{f"{number}.{kind}" for number in front for kind in ("model", "coded")} for front in fronts]
    assert {row.number for row in by_number(store, study) if row.artifacts} == {3, 4, 5}
    assert store.check(study, ArtifactStore(tmp_path / "artifacts")) == []


def test_files_that_a_killed_driver_left_in_the_store_are_removed(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], tmp_path: Path
) -> None:
    run, now = leaving_files(tmp_path), datetime.now(UTC)
    for rank in (700, 800):  # recorded, and killed before the files of the dominated one were removed
        claim = store.claim(study, a_point(rank), dead_worker(), {"label": "theirs"})
        outcome = run(Job(claim.number, claim.point, 0, 1.0))
        store.record(study, claim, outcome, Execution(0, now, now))
    assert files(tmp_path) == {"0.model", "0.coded", "1.model", "1.coded"}
    drive(target=2).run()
    assert files(tmp_path) == {"1.model", "1.coded"}


def test_a_searcher_is_told_of_every_trial_and_claim(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    store.claim(study, a_point(700), ELSEWHERE, {"label": "theirs"})
    drive(searcher=Counting(points=2), target=9).run()
    searcher = Counting(points=2)
    drive(searcher=searcher, target=9).run()
    assert searcher.known == {
        a_point(0).key: State.COMPLETE,
        a_point(1).key: State.COMPLETE,
        a_point(700).key: None,
    }


# ---- trouble, and another try ------------------------------------------------------------------------------


def unlucky(number: int, times: int, trouble: Exception) -> Callable[[Job], Outcome]:
    """A runner that gets into trouble with one trial, so many times."""

    def run(job: Job) -> Outcome:
        if job.number == number and job.attempt <= times:
            raise trouble
        return better_and_better(job)

    return run


@pytest.mark.parametrize("trouble", [LaunchError("its worker died"), ArtifactError("no room")])
def test_a_trial_in_trouble_is_tried_again(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], trouble: Exception
) -> None:
    drive(InProcess(unlucky(1, 2, trouble)), target=3, max_retries=2).run()
    assert [(row.state, row.attempt) for row in by_number(store, study)] == [
        (State.COMPLETE, 1),
        (State.COMPLETE, 3),
        (State.COMPLETE, 1),
    ]


@pytest.mark.parametrize("trouble", [LaunchError("its worker died"), ArtifactError("no room")])
def test_a_trial_that_stays_in_trouble_has_failed_with_the_reason(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], trouble: Exception
) -> None:
    drive(LastFirst(unlucky(1, 9, trouble)), target=4, max_retries=2).run()
    rows = by_number(store, study)
    assert [row.state for row in rows] == [State.COMPLETE, State.FAILED, State.COMPLETE, State.COMPLETE]
    assert (rows[1].reason, rows[1].attempt) == (str(trouble), 3)


def test_an_error_that_is_no_trials_own_ends_the_search(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    with pytest.raises(TaskError, match="no data"):
        drive(InProcess(unlucky(1, 1, TaskError("no data"))), target=3).run()
    assert [row.number for row in by_number(store, study)] == [0]
    assert [claim.worker for claim in store.claims(study)] == [""]


def test_a_full_artifact_store_costs_no_trial(
    store: Store,
    study: StudyRecord,
    drive: Callable[..., SearchDriver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked, slept = tmp_path / "artifacts", list[float]()
    leaving = leaving_files(tmp_path)

    def run(job: Job) -> Outcome:
        if not slept:
            blocked.write_text("a file where the folder should be")
        return leaving(job)

    with pytest.raises(ArtifactError, match="artifacts"):
        drive(InProcess(run), target=3, max_retries=9).run()
    assert by_number(store, study) == []
    blocked.unlink()

    def make_room(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            blocked.unlink()

    monkeypatch.setattr(driver.time, "sleep", make_room)
    assert drive(InProcess(run), target=3, max_retries=1, patience=3600.0).run() is True
    assert len(slept) == 3
    assert [(row.state, row.attempt) for row in by_number(store, study)] == [
        (State.COMPLETE, 2),
        (State.COMPLETE, 1),
        (State.COMPLETE, 1),
    ]


def test_a_driver_waits_for_the_artifacts_of_a_trial_that_was_in_flight(
    store: Store,
    study: StudyRecord,
    drive: Callable[..., SearchDriver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    run = leaving_files(tmp_path)
    with pytest.raises(ArtifactError, match="artifacts"):
        drive(InProcess(run), target=1).run()
    monkeypatch.setattr(driver.time, "sleep", lambda seconds: (tmp_path / "artifacts").unlink())
    assert drive(InProcess(run), target=1, max_retries=0, patience=3600.0).run() is True
    assert [(row.state, row.attempt) for row in by_number(store, study)] == [(State.COMPLETE, 1)]


def test_a_claim_whose_granting_was_not_heard_of_is_taken_up(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    made = drive(target=3)
    granted, real = [], store.claim

    def deaf_once(*arguments: object, **named: object) -> Claim | None:
        claim = real(*arguments, **named)  # type: ignore[arg-type]
        granted.append(claim)
        return None if len(granted) == 1 else claim

    store.claim = deaf_once  # type: ignore[method-assign]
    assert made.run() is True
    assert [row.number for row in by_number(store, study)] == [0, 1, 2]
    assert by_number(store, study)[0].attempt == 2


# ---- claims that are lost, and clocks that are wrong ----------------------------------------------------------


def overtake(store: Store, study: StudyRecord, number: int, *, record: bool) -> None:
    """As another driver does that takes this one for dead."""
    claim, _ = store.take_over(study, ELSEWHERE, lambda claim: claim.number == number)
    if record:
        now = datetime.now(UTC)
        store.record(study, claim, complete(0.25, 1.0), Execution(0, now, now))


def test_a_result_that_comes_too_late_is_dropped(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], caplog: pytest.LogCaptureFixture
) -> None:
    watched: list[int] = []

    class Noting(TrialCallback):
        def recorded(self, row: TrialRow) -> None:
            watched.append(row.number)

        def progressed(self, progress: SearchProgress) -> None:
            return

        def close(self) -> None:
            return

    def run(job: Job) -> Outcome:
        if job.number == 1:
            overtake(store, study, 1, record=True)
        return better_and_better(job)

    made = drive(InProcess(run), target=3, callbacks=[Noting()])
    with caplog.at_level("INFO", "rank_search"):
        assert made.run() is True
    rows = by_number(store, study)
    assert [(row.number, row.worker) for row in rows if row.worker == ELSEWHERE] == [(1, ELSEWHERE)]
    assert rows[1].measurements == {"error": 0.25, "macs": 1.0}
    assert (made.done_here, watched) == (2, [0, 2])
    (dropped,) = [each for each in caplog.records if each.getMessage() == "result dropped"]
    assert dropped.trial == 1  # type: ignore[attr-defined]
    assert store.claims(study) == []
    assert store.check(study) == []


def test_a_driver_does_not_take_over_a_trial_that_it_is_carrying_out(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """His claims were handed on while he was stopped, and their new holder is silent, or has given them up."""
    monkeypatch.setattr(pulses, "EXPIRED", timedelta(seconds=-1))
    monkeypatch.setattr(driver, "PATIENCE", timedelta(0))
    monkeypatch.setattr(claiming, "BETWEEN_LOOKS", timedelta(0))
    ran: list[int] = []

    def run(job: Job) -> Outcome:
        ran.append(job.number)
        if job.number == 2:  # the first that is carried out of three that are held
            overtake(store, study, 0, record=False)
            overtake(store, study, 1, record=False)
            (given_up,) = [claim for claim in store.claims(study) if claim.number == 1]
            store.release(study, [given_up])
        return better_and_better(job)

    assert drive(LastFirst(run), target=5).run() is True
    assert sorted(ran) == [0, 1, 2, 3, 4], "each once"
    assert [row.number for row in by_number(store, study)] == [0, 1, 2, 3, 4]
    assert store.claims(study) == []


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=-400)])
def test_clocks_that_jump_lose_no_claim_and_no_sense(
    store: Store,
    study: StudyRecord,
    drive: Callable[..., SearchDriver],
    monkeypatch: pytest.MonkeyPatch,
    jump: timedelta,
) -> None:
    """With SQLite, the database's clock is this machine's."""
    offset = timedelta(0)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + offset

    for module in (executors, moments):
        monkeypatch.setattr(module, "datetime", Jumping)
    monkeypatch.setattr(pulses, "HEARTBEAT", timedelta(milliseconds=5))
    monkeypatch.setattr(driver, "PATIENCE", timedelta(0))
    monkeypatch.setattr(claiming, "BETWEEN_LOOKS", timedelta(0))

    def run(job: Job) -> Outcome:
        nonlocal offset
        before, offset = store.claims(study), offset + jump
        deadline = 200
        while not {each.heartbeat for each in store.claims(study)}.isdisjoint(each.heartbeat for each in before):
            threading.Event().wait(0.01)
            deadline -= 1
            assert deadline, "no heartbeat"
        return better_and_better(job)

    assert drive(LastFirst(run), target=4).run() is True
    rows = by_number(store, study)
    assert [row.attempt for row in rows] == [1, 1, 1, 1]
    assert all(timedelta(0) <= row.finished - row.started < timedelta(minutes=5) for row in rows)


def test_moments_are_by_the_clock_of_the_database(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is another machine's, and two hours ahead."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=2)

    monkeypatch.setattr(moments, "datetime", Ahead)
    drive(target=2).run()
    now = store.now()
    assert now - datetime.now(UTC) > timedelta(hours=1.9)
    for row in by_number(store, study):
        assert now - timedelta(minutes=5) < row.started <= row.finished <= now
    found = status_of(store, study.name, timedelta(hours=1))
    assert found.activity.finished == 2
    assert 0 <= found.seconds_since(found.activity.last_finished) < 300  # type: ignore[operator]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_progress_that_nobody_reads_ends_no_search(
    store: Store,
    study: StudyRecord,
    drive: Callable[..., SearchDriver],
    caplog: pytest.LogCaptureFixture,
    error: OSError,
) -> None:
    told: list[int] = []

    def report(progress: SearchProgress) -> None:
        told.append(progress.finished)
        if progress.finished == 2:
            raise error

    assert drive(target=5, report=report).run() is True
    assert told == [0, 1, 2]
    assert len(by_number(store, study)) == 5
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == ["Progress is shown no more"]


def test_a_driver_interrupted_while_the_store_is_away_ends_at_once(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = store._database._patience
    monkeypatch.setattr(patience, "_seconds", 3600.0)

    def away(*_: object) -> None:
        raise StoreAwayError("nobody answers")

    def run(job: Job) -> Outcome:
        monkeypatch.setattr(store, "heartbeat", lambda study, held: patience.until_done(away))
        monkeypatch.setattr(store, "release", lambda study, held: patience.until_done(away))
        monkeypatch.setattr(pulses, "HEARTBEAT", timedelta(milliseconds=1))
        threading.Event().wait(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(pulses, "HEARTBEAT", timedelta(milliseconds=10))
    with pytest.raises(KeyboardInterrupt):
        drive(InProcess(run), target=3).run()


# ---- rungs -------------------------------------------------------------------------------------------------


@pytest.fixture
def long_study(store: Store, study: StudyRecord) -> StudyRecord:
    return store.join(replace(study, name="long", budget=9.0, id=0))


@pytest.fixture
def climb(
    store: Store, long_study: StudyRecord, tmp_path: Path, drive: Callable[..., SearchDriver]
) -> Callable[..., tuple[SearchDriver, list[Job]]]:
    """Makes a driver with rungs at 1, 3 and 9 epochs, and the list of the jobs that it gives out."""
    artifacts = ArtifactStore(tmp_path / "artifacts")

    def make(target: int = 9, judge: Callable[[Job], Outcome] | None = None) -> tuple[SearchDriver, list[Job]]:
        jobs: list[Job] = []

        def run(job: Job) -> Outcome:
            jobs.append(job)
            found = judge(job) if judge else complete(error=1 / (1 + job.number) / job.budget, macs=10.0)
            kinds = ("model", "coded") if job.budget == 9 else ("checkpoint",)
            content = f"{job.number} {job.budget}".encode()
            kept = [artifacts.write(kind, f"{job.number}", f".{kind}", content) for kind in kinds]
            return replace(found, artifacts=tuple(kept)) if found.state is State.COMPLETE else found

        rungs = Rungs(RungSettings(first=1.0, factor=3.0), 9.0)
        return drive(InProcess(run), target=target, rungs=rungs, study=long_study), jobs

    return make


def test_the_best_of_a_rung_go_on_from_their_checkpoints(
    store: Store, long_study: StudyRecord, climb: Callable[..., tuple[SearchDriver, list[Job]]], tmp_path: Path
) -> None:
    made, jobs = climb()
    assert made.run() is True
    rows = {row.number: row for row in store.trials(long_study)}
    assert sorted(rows) == list(range(9))
    assert {row.state for row in rows.values() if row.budget < 9} == {State.STOPPED}
    assert {row.state for row in rows.values() if row.budget == 9} == {State.COMPLETE}
    for job in jobs:
        assert (job.checkpoint is None) == (job.budget == 1), "whoever is promoted goes on from where he stopped"
    assert [row.number for row in store.front(long_study)] == [max(n for n, row in rows.items() if row.budget == 9)]
    assert all(row.earlier for row in rows.values() if row.budget > 1)
    assert store.claims(long_study) == []
    assert store.check(long_study, ArtifactStore(tmp_path / "artifacts")) == []
    kept = {artifact.location for row in rows.values() for artifact in row.artifacts}
    assert set(ArtifactStore(tmp_path / "artifacts").names()) == kept, "used checkpoints are gone, the others are there"


def test_seed_points_are_measured_before_any_of_them_goes_on(
    store: Store, long_study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    source, jobs = Counting(), list[tuple[int, float]]()
    source.seeds = 5

    def run(job: Job) -> Outcome:
        jobs.append((job.number, job.budget))
        return complete(error=1 / (1 + job.number), macs=10.0 + job.number)

    rungs = Rungs(RungSettings(first=0, factor=3.0), 9.0)
    made = drive(InProcess(run), source, target=7, rungs=rungs, study=long_study)
    assert made.run() is True
    assert jobs[:5] == [(number, 0) for number in range(5)]
    assert sorted(jobs[5:10]) == [(number, 9) for number in range(5)]
    assert jobs[10:] == [(5, 0), (5, 9), (6, 0), (6, 9)], "each is as good as none before"
    assert {row.budget for row in store.front(long_study)} == {9}
    assert all(list(row.earlier) == [0.0] for row in store.trials(long_study))


def test_fewer_trials_than_seed_points_go_on_all_the_same(
    store: Store, long_study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    source = Counting()
    source.seeds = 5
    rungs = Rungs(RungSettings(first=0), 9.0)
    made = drive(InProcess(better_and_better), source, target=3, rungs=rungs, study=long_study)
    assert made.run() is True
    assert [row.budget for row in by_number(store, long_study)] == [0, 0, 9]


def test_no_more_than_a_share_of_each_rung_goes_on(
    store: Store, long_study: StudyRecord, climb: Callable[..., tuple[SearchDriver, list[Job]]]
) -> None:
    made, jobs = climb(target=27)
    made.run()
    reached = [sum(job.budget == budget for job in jobs) for budget in (1, 3, 9)]
    assert reached[0] == 27
    assert 1 <= reached[1] <= 9
    assert 1 <= reached[2] <= 3


def test_a_failed_promotion_keeps_what_was_measured_before(
    store: Store, long_study: StudyRecord, climb: Callable[..., tuple[SearchDriver, list[Job]]]
) -> None:
    def fail_high(job: Job) -> Outcome:
        if job.budget > 1:
            return Outcome(State.FAILED, reason="the GPU fell off")
        return complete(error=1 / (1 + job.number), macs=10.0)

    made, _ = climb(judge=fail_high)
    made.run()
    failed = [row for row in store.trials(long_study) if row.state is State.FAILED]
    assert failed
    assert all(row.budget == 3 and row.earlier[1.0]["macs"] == 10 for row in failed)
    assert [*store.front(long_study)] == []


def test_a_damaged_checkpoint_costs_a_fresh_start(
    store: Store, long_study: StudyRecord, climb: Callable[..., tuple[SearchDriver, list[Job]]]
) -> None:
    def unreadable(job: Job) -> Outcome:
        if job.checkpoint is not None:
            raise ArtifactError("the checkpoint is damaged")
        return complete(error=1 / (1 + job.number), macs=10.0)

    made, jobs = climb(judge=unreadable)
    made.run()
    assert any(job.budget > 1 and job.checkpoint is None and job.attempt == 2 for job in jobs)
    assert not any(row.state is State.FAILED for row in store.trials(long_study))
