"""A pool of workers that outlive one trial and not the driver; what a worker is, a process or an actor, is filled in.

Here are its slots: who is ready, who is busy and since when, what becomes of a worker that dies, never starts, or runs
past the time limit. See `docs/decisions/0015-one-pool.md`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rank_search.errors import LaunchError, RankSearchError
from rank_search.launch.executors import Executor, Finished, Job, cut_short
from rank_search.observe import logs

MOST_LOST_STARTS: Final = 2


@dataclass(frozen=True)
class Answer:
    """What a worker says, or is said of one that has died; nothing at all: one more step towards its runner is done.

    Attributes:
        ready: the name of a worker that takes jobs from now on.
        finished: its job has ended.
        error: why it cannot make its runner; no other worker could.
        died: how it died.
    """

    ready: str = ""
    finished: Finished | None = None
    error: RankSearchError | None = None
    died: str = ""

    @property
    def is_step(self) -> bool:
        return self == Answer()


class Worker(ABC):
    """A worker as the pool sees it.

    Attributes:
        name: "" as long as nobody knows it.
        job: what it is busy with, or will be when it is ready.
        since: when the job was given out, on the monotonic clock.
    """

    def __init__(self, name: str = "") -> None:
        self.name, self.ready = name, False
        self.job: Job | None = None
        self.since = 0.0

    @abstractmethod
    def give(self, job: Job) -> None:
        """Have it run the job; if it has just died, `Pool._answers` will tell."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    @abstractmethod
    def clear(self) -> None:
        """Leave nothing of one that was killed or has died."""


W = TypeVar("W", bound=Worker)


class Pool(Executor, Generic[W]):
    """Runs jobs in workers, each of which makes its runner once and keeps it warm.

    A worker that dies takes its own job with it and nothing else: the job comes back with a `LaunchError`, and a fresh
    worker takes the place. A job that its worker was not ready for was never begun, and goes to the successor.

    Args:
        workers: how many.
        time_limit: seconds after which a job's worker is killed and the job is a failed outcome.
        most_lost_starts: how many workers in a row may die before they are ready.
        takes_early: whether a worker is given a job before it is ready.
        advice: what to do when too many die before they are ready.
    """

    def __init__(
        self, workers: int, time_limit: float | None, most_lost_starts: int, *, takes_early: bool, advice: str
    ) -> None:
        self._time_limit, self._takes_early = time_limit, takes_early
        self._most_lost_starts, self._lost_starts, self._advice = most_lost_starts, 0, advice
        self._workers: list[W] = [self._start(place) for place in range(workers)]

    @abstractmethod
    def _start(self, place: int) -> W:
        """A new worker, on its way to being ready; `place`: which one of the pool, from 0."""

    @abstractmethod
    def _answers(self, seconds: float) -> Iterator[tuple[W, Answer]]:
        """What workers have said, or who has died; waits at most that long for the first."""

    @property
    def workers(self) -> int:
        return sum(worker.ready for worker in self._workers)

    @property
    def free(self) -> int:
        return sum(self._is_free(worker) for worker in self._workers)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if self._is_free(worker))
        self._assign(worker, job)

    def collect(self, seconds: float) -> list[Finished]:
        deadline = time.monotonic() + seconds
        while True:
            free = self.free
            finished = self._collect_once(max(0.0, min(1.0, deadline - time.monotonic())))
            if finished or self.free > free or time.monotonic() >= deadline:
                return finished

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.clear()
        self._workers = []

    def _is_free(self, worker: W) -> bool:
        return worker.job is None and (worker.ready or self._takes_early)

    def _assign(self, worker: W, job: Job) -> None:
        worker.job, worker.since = job, time.monotonic()
        if worker.ready:
            worker.give(job)

    def _collect_once(self, seconds: float) -> list[Finished]:
        answers = [each for worker, answer in self._answers(seconds) for each in self._take(worker, answer)]
        return answers + self._overdue()

    def _take(self, worker: W, answer: Answer) -> list[Finished]:
        if answer.error is not None:
            raise answer.error
        if answer.died:
            return self._lost(worker, answer.died)
        if answer.ready:
            self._welcome(worker, answer.ready)
        if answer.finished is None:
            return []
        worker.job = None
        return [answer.finished]

    def _welcome(self, worker: W, name: str) -> None:
        worker.name, worker.ready, self._lost_starts = name, True, 0
        logs.worker_started(name)
        if worker.job is not None:
            self._assign(worker, worker.job)

    def _lost(self, worker: W, how: str) -> list[Finished]:
        """A worker has died: start another, and give its job back; one that was never begun is begun again."""
        self._lost_starts += not worker.ready
        if self._lost_starts > self._most_lost_starts:
            raise LaunchError(
                f"{self._lost_starts} workers in a row ended before their first trial, the last with "
                f"{how.rstrip('.')}. {self._advice}"
            )
        died = f"its worker {worker.name} died ({how})"
        logs.worker_died(worker.name, died)
        successor = self._replace(worker)
        if worker.job is None:
            return []
        if not worker.ready:
            successor.job = worker.job
            return []
        return [cut_short(worker.job, worker.since, died, worker.name, LaunchError(died))]

    def _overdue(self) -> list[Finished]:
        finished = []
        for worker in list(self._workers):
            if worker.job is not None and self._is_overdue(worker):
                worker.kill()
                self._replace(worker)
                reason = f"it ran past time_limit = {self._time_limit:g} s"
                finished.append(cut_short(worker.job, worker.since, reason, worker.name))
        return finished

    def _is_overdue(self, worker: W) -> bool:
        running = time.monotonic() - worker.since
        return worker.ready and self._time_limit is not None and running > self._time_limit

    def _replace(self, worker: W) -> W:
        worker.clear()
        place = self._workers.index(worker)
        self._workers[place] = successor = self._start(place)
        return successor
