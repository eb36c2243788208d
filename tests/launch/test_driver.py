"""The driver: who gets which trial, what is recorded, which files stay, and how it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rank_search.fronts import Claim, Store, StudyRecord
from rank_search.launch import Executor, Finished, InProcess, Job, driver
from rank_search.launch.driver import Driver, Plan, died_here, hypervolume_of
from rank_search.launch.progress import Progress
from rank_search.point import Bound, Choice, Objective, Outcome, Point, State
from rank_search.search import Past, Suggestion
from rank_search.trials.artifacts import write_artifact

ELSEWHERE = "another-machine:1"


class Counting:
    """A searcher whose points are numbers, as many as there are."""

    def __init__(self, points: int = 1000) -> None:
        self.points, self.known, self.withdrawn = points, dict[str, State | None](), 0

    def ask(self, number: int) -> Suggestion | None:
        point = next((each for each in map(a_point, range(self.points)) if each.key not in self.known), None)
        if point is None:
            return None
        self.known[point.key] = None
        return Suggestion(number, point, {"label": "counting"})

    def feed(self, trials: Iterable[Past]) -> None:
        self.known |= {past.point.key: past.outcome and past.outcome.state for past in trials}

    def withdraw(self, suggestion: Suggestion) -> None:
        self.withdrawn += 1
        del self.known[suggestion.point.key]


class LastFirst(Executor):
    """Takes three jobs, and gives the last one back first."""

    def __init__(self, run: Callable[[Job], Outcome]) -> None:
        self.run, self.jobs, self.closed = run, list[Job](), False

    @property
    def free(self) -> int:
        return 3 - len(self.jobs)

    def submit(self, job: Job) -> None:
        assert self.free
        self.jobs.append(job)

    def collect(self, seconds: float) -> list[Finished]:
        job = self.jobs.pop()
        return [Finished(job, self.run(job), datetime.now(UTC), datetime.now(UTC))]

    def close(self) -> None:
        self.closed = True


def a_point(rank: int) -> Point:
    return Point({"layer": Choice("svd", {"rank": rank})})


def complete(error: float, macs: float, *artifacts: Any) -> Outcome:
    return Outcome(State.COMPLETE, {"error": error, "macs": macs}, artifacts=artifacts)


def better_and_better(job: Job) -> Outcome:
    return complete(error=1 / (1 + job.number), macs=10.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.sqlite", create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    record = StudyRecord(
        name="study",
        fingerprint={},
        space={},
        objectives=(Objective("error"), Objective("macs")),
        reference_point={"error": 1.0, "macs": 10.0},
        ideal={"error": 0.0, "macs": 0.0},
        dense={"error": 0.5, "macs": 10.0},
        budget=1.0,
    )
    return store.join(record)


@pytest.fixture
def drive(store: Store, study: StudyRecord, tmp_path: Path) -> Callable[..., Driver]:
    """Makes a driver; what is not said is the simplest there is."""

    def make(executor: Executor | None = None, searcher: Counting | None = None, **changes: Any) -> Driver:
        report = changes.pop("report", lambda progress: None)
        plan = Plan(
            **{
                "target": 5,
                "budget": 1.0,
                "rng_seed": 0,
                "constraints": (),
                "judge": lambda point: None,
                "max_retries": 1,
                "artifacts": tmp_path / "artifacts",
                **changes,
            }
        )
        chosen = executor or InProcess(better_and_better)
        return Driver(store, study, searcher or Counting(), chosen, plan, report)  # type: ignore[arg-type]

    return make


def dead_worker() -> str:
    """A driver of this machine whose process is gone."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return f"{socket.gethostname()}:{process.pid}"


# ---- to the target ---------------------------------------------------------------------------------------


def test_it_reaches_the_target_and_tells_how_far_it_is(
    store: Store, study: StudyRecord, drive: Callable[..., Driver]
) -> None:
    told: list[Progress] = []
    executor = LastFirst(better_and_better)
    made = drive(executor, target=7, report=told.append)
    assert made.run() is True
    assert [row.number for row in store.trials(study)] == list(range(7))
    assert store.claims(study) == []
    assert made.done_here == 7
    assert executor.closed
    assert [each.finished for each in told] == list(range(8))
    assert [row.number for row in told[-1].front] == [6]
    assert told[-1].hypervolume == 0.0, "no member is better than the reference point in macs"
    assert told[0].seconds_left is None
    assert told[-1].seconds_left == 0


def test_nothing_is_left_to_do(store: Store, study: StudyRecord, drive: Callable[..., Driver]) -> None:
    drive(target=4).run()
    again = drive(target=2)
    assert again.run() is True
    assert (again.done_here, len(store.trials(study))) == (0, 4)


def test_a_space_that_is_exhausted_ends_it(store: Store, study: StudyRecord, drive: Callable[..., Driver]) -> None:
    assert drive(LastFirst(better_and_better), Counting(points=4), target=9).run() is False
    assert len(store.trials(study)) == 4
    assert drive(searcher=Counting(points=4), target=4).run() is True


def test_what_can_be_judged_is_not_run(store: Store, study: StudyRecord, drive: Callable[..., Driver]) -> None:
    ran: list[int] = []

    def note(job: Job) -> Outcome:
        ran.append(job.number)
        return better_and_better(job)

    def judge(point: Point) -> Outcome | None:
        odd = point.layers["layer"].values["rank"] % 2
        return Outcome(State.INFEASIBLE, {"macs": 99.0}, "too many") if odd else None

    drive(InProcess(note), judge=judge, target=6).run()
    assert ran == [0, 2, 4]
    infeasible = [row for row in store.trials(study) if row.state is State.INFEASIBLE]
    assert [(row.number, row.reason, row.measurements) for row in infeasible] == [
        (number, "too many", {"macs": 99.0}) for number in (1, 3, 5)
    ]


# ---- claims ----------------------------------------------------------------------------------------------


def test_the_claims_of_the_dead_come_first_under_their_numbers(
    store: Store, study: StudyRecord, drive: Callable[..., Driver]
) -> None:
    lost = [store.claim(study, a_point(rank), dead_worker(), {"label": "lost"}) for rank in (700, 800)]
    drive(LastFirst(better_and_better), target=4).run()
    rows = store.trials(study)
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert [row.point for row in rows[:2]] == [each.point for each in lost if each]
    assert [row.attempt for row in rows] == [2, 2, 1, 1]


def test_a_claim_without_a_heartbeat_is_taken_over(
    store: Store, study: StudyRecord, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.claim(study, a_point(700), ELSEWHERE, {"label": "lost"})
    monkeypatch.setattr(driver, "EXPIRED", timedelta(seconds=-1))
    drive(target=1).run()
    (row,) = store.trials(study)
    assert (row.point, row.attempt) == (a_point(700), 2)


def test_a_trial_that_ends_its_driver_each_time_is_given_up(
    store: Store, study: StudyRecord, drive: Callable[..., Driver]
) -> None:
    store.claim(study, a_point(700), dead_worker(), {"label": "deadly"})
    assert store.take_over(study, dead_worker(), datetime.now(UTC) + timedelta(hours=1))
    ran: list[Job] = []

    def note(job: Job) -> Outcome:
        ran.append(job)
        return better_and_better(job)

    drive(InProcess(note), target=2, max_retries=1).run()
    deadly, other = store.trials(study)
    assert (deadly.state, deadly.reason) == (State.FAILED, "its process died in each of 2 tries")
    assert other.state is State.COMPLETE
    assert [job.number for job in ran] == [1]


def test_the_trials_of_another_driver_are_waited_for(
    store: Store, study: StudyRecord, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = store.claim(study, a_point(700), ELSEWHERE, {"label": "theirs"})
    assert theirs is not None
    waited = 0

    def they_finish(seconds: float) -> None:
        nonlocal waited
        waited += 1
        if waited == 3:
            now = datetime.now(UTC)
            store.record(study, theirs, complete(0.1, 1.0), budget=1, rng_seed=0, started=now, finished=now)

    monkeypatch.setattr(driver.time, "sleep", they_finish)
    told: list[Progress] = []
    made = drive(target=3, report=told.append)
    assert made.run() is True
    assert (made.done_here, waited) == (2, 3)
    assert [row.number for row in store.trials(study)] == [0, 1, 2]
    assert told[-1].finished == 3


def test_a_point_that_another_driver_has_is_not_tried_twice(
    store: Store, study: StudyRecord, drive: Callable[..., Driver]
) -> None:
    class Overtaken(Counting):
        """Between asking and claiming, another driver claims the same point, once."""

        def ask(self, number: int) -> Suggestion | None:
            suggestion = super().ask(number)
            if number == 1 and suggestion is not None and not self.withdrawn:
                claim = store.claim(study, suggestion.point, ELSEWHERE, {"label": "theirs"})
                now = datetime.now(UTC)
                store.record(study, claim, complete(0.9, 1.0), budget=1, rng_seed=0, started=now, finished=now)
            return suggestion

    searcher = Overtaken()
    drive(searcher=searcher, target=4).run()
    assert searcher.withdrawn == 1
    assert [row.number for row in store.trials(study)] == [0, 1, 2, 3]
    assert {row.point.key for row in store.trials(study)} == {a_point(rank).key for rank in range(4)}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("out of luck")])
def test_interrupted_it_gives_its_claims_up(
    store: Store, study: StudyRecord, drive: Callable[..., Driver], error: BaseException
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
    assert [row.attempt for row in store.trials(study)] == [1, 1, 1, 1]


def test_the_heartbeat_goes_on_during_a_trial(
    store: Store, study: StudyRecord, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "HEARTBEAT", timedelta(milliseconds=1))

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
    assert len(store.trials(study)) == 1


# ---- what is recorded, and which files stay --------------------------------------------------------------


def test_a_measured_constraint_makes_a_trial_infeasible(
    store: Store, study: StudyRecord, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    bounds = (Bound.parse("error <= 0.5 * dense"),)
    drive(InProcess(leaving_files(tmp_path)), constraints=bounds, target=5).run()
    rows = store.trials(study)
    assert [row.state for row in rows] == [State.INFEASIBLE] * 3 + [State.COMPLETE] * 2
    assert rows[0].reason == "error <= 0.5 * dense does not hold: error is 1"
    assert rows[0].measurements == {"error": 1.0, "macs": 10.0}
    assert [row.number for row in rows if row.artifacts] == [4]
    assert files(tmp_path) == {"4.coded", "4.model"}


def leaving_files(folder: Path, outcome: Callable[[Job], Outcome] = better_and_better) -> Callable[[Job], Outcome]:
    def run(job: Job) -> Outcome:
        kinds = ("model", "coded")
        kept = [write_artifact(folder / "artifacts", kind, f"{job.number}.{kind}", b"x") for kind in kinds]
        return Outcome(State.COMPLETE, outcome(job).measurements, artifacts=tuple(kept))

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "artifacts").iterdir()}


def test_only_the_files_of_the_front_stay(
    store: Store, study: StudyRecord, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    losses = [(0.5, 5.0), (0.6, 6.0), (0.4, 9.0), (0.3, 4.0), (0.9, 1.0), (0.3, 4.0)]
    executor = InProcess(leaving_files(tmp_path, lambda job: complete(*losses[job.number])))
    seen: list[set[str]] = []
    drive(executor, target=6, report=lambda progress: progress.finished and seen.append(files(tmp_path))).run()
    fronts = [{0}, {0}, {0, 2}, {3}, {3, 4}, {3, 4, 5}]
    assert seen == [{f"{number}.{kind}" for number in front for kind in ("model", "coded")} for front in fronts]
    assert {row.number for row in store.trials(study) if row.artifacts} == {3, 4, 5}
    assert store.check(study, tmp_path / "artifacts") == []


def test_files_that_a_killed_driver_left_in_the_store_are_removed(
    store: Store, study: StudyRecord, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    run, now = leaving_files(tmp_path), datetime.now(UTC)
    for rank in (700, 800):  # recorded, and killed before the files of the dominated one were removed
        claim = store.claim(study, a_point(rank), dead_worker(), {"label": "theirs"})
        outcome = run(Job(claim.number, claim.point, 0))
        store.record(study, claim, outcome, budget=1, rng_seed=0, started=now, finished=now)
    assert files(tmp_path) == {"0.model", "0.coded", "1.model", "1.coded"}
    drive(target=2).run()
    assert files(tmp_path) == {"1.model", "1.coded"}


def test_a_searcher_is_told_of_everything(store: Store, study: StudyRecord, drive: Callable[..., Driver]) -> None:
    store.claim(study, a_point(700), ELSEWHERE, {"label": "theirs"})
    drive(searcher=Counting(points=2), target=9).run()
    searcher = Counting(points=2)
    drive(searcher=searcher, target=9).run()
    assert searcher.known == {
        a_point(0).key: State.COMPLETE,
        a_point(1).key: State.COMPLETE,
        a_point(700).key: None,
    }


# ---- small questions -------------------------------------------------------------------------------------


def test_who_has_died_here() -> None:
    assert died_here(dead_worker())
    assert not died_here(f"{socket.gethostname()}:{os.getpid()}")
    assert not died_here(ELSEWHERE)
    assert not died_here("")
    assert not died_here(f"{socket.gethostname()}:what")
    assert not died_here(f"{socket.gethostname()}:1")


def test_hypervolume_is_a_share_of_the_box(study: StudyRecord) -> None:
    assert hypervolume_of(study, []) == 0
    assert hypervolume_of(study, [[0.5, 5.0]]) == pytest.approx(0.25)
    assert hypervolume_of(study, [[0.0, 0.0]]) == pytest.approx(1)
