"""What the driver's tests are made of: a searcher, an executor, points and outcomes."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rank_search.launch import Executor, Job
from rank_search.launch.driver_name import driver_name
from rank_search.launch.executors import Finished, carry_out
from rank_search.point import Choice, Outcome, Point, State
from rank_search.search import SearchTrial
from rank_search.store import Store, StudyRecord, TrialRow

ELSEWHERE = "another-machine:1"


class Counting:
    """A searcher whose points are numbers, as many as there are, the first ones seed points."""

    seeds = 0

    def __init__(self, points: int = 1000) -> None:
        self.points, self.known, self.withdrawn = points, dict[str, State | None](), 0

    @property
    def has_seeds(self) -> bool:
        return len(self.known) < self.seeds

    def ask(self, number: int) -> SearchTrial | None:
        point = next((each for each in map(a_point, range(self.points)) if each.key not in self.known), None)
        if point is None:
            return None
        self.known[point.key] = None
        return SearchTrial(number, point, {"label": "counting"})

    def feed(self, trials: Iterable[SearchTrial]) -> None:
        self.known |= {each.point.key: each.outcome and each.outcome.state for each in trials}

    def withdraw(self, trial: SearchTrial) -> None:
        self.withdrawn += 1
        del self.known[trial.point.key]


class LastFirst(Executor):
    """Takes three jobs, and gives the last one back first."""

    def __init__(self, run: Callable[[Job], Outcome]) -> None:
        self.run, self.jobs, self.closed = run, list[Job](), False

    @property
    def workers(self) -> int:
        return 3

    @property
    def free(self) -> int:
        return 3 - len(self.jobs)

    def submit(self, job: Job) -> None:
        assert self.free
        self.jobs.append(job)

    def collect(self, seconds: float) -> list[Finished]:
        job = self.jobs.pop()
        return [carry_out(self.run, job, "here")]

    def close(self) -> None:
        self.closed = True


def a_point(rank: int) -> Point:
    return Point({"layer": Choice("svd", {"rank": rank})})


def complete(error: float, macs: float, *artifacts: Any) -> Outcome:
    return Outcome(State.COMPLETE, {"error": error, "macs": macs}, artifacts=artifacts)


def better_and_better(job: Job) -> Outcome:
    return complete(error=1 / (1 + job.number), macs=10.0)


def by_number(store: Store, study: StudyRecord) -> list[TrialRow]:
    return sorted(store.trials(study), key=lambda row: row.number)


def dead_worker() -> str:
    """A driver of this machine whose process is gone."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    _, _, birth = driver_name().rpartition(":")
    return f"{socket.gethostname()}:{process.pid}:{birth}"
