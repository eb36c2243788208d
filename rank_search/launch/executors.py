"""Where trials run: in the driver itself, or in worker processes that outlive one trial and not the driver."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from rank_search.errors import RankSearchError, TrialError
from rank_search.point import Outcome, Point, State

_MOST_LOST_STARTS: Final = 2


@dataclass(frozen=True)
class Job:
    """One trial to run: its number, its point, the seed of its random numbers, and the how-manieth try it is."""

    number: int
    point: Point
    rng_seed: int
    attempt: int = 1


@dataclass(frozen=True)
class Finished:
    """A job that ended, with when it began and ended (UTC)."""

    job: Job
    outcome: Outcome
    started: datetime
    finished: datetime


Runner = Callable[[Job], Outcome]
"""Runs one trial; what goes wrong in it is an outcome, not an exception."""


class Executor(ABC):
    """Takes jobs while it has free slots and gives them back finished, in any order."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many more jobs it takes now."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job; there must be a free slot."""

    @abstractmethod
    def collect(self, seconds: float) -> list[Finished]:
        """Jobs that have ended; waits at most that long for the first."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything at once; jobs in flight are lost."""


class InProcess(Executor):
    """Runs each job in the driver, when it is collected."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._waiting: list[Job] = []

    @property
    def free(self) -> int:
        return 1 - len(self._waiting)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def collect(self, seconds: float) -> list[Finished]:
        jobs, self._waiting = self._waiting, []
        return [_timed(self._runner, job) for job in jobs]

    def close(self) -> None:
        self._waiting.clear()


def _timed(runner: Runner, job: Job) -> Finished:
    started = datetime.now(UTC)
    outcome = runner(job)
    return Finished(job, outcome, started, datetime.now(UTC))


@dataclass
class _Worker:
    """A process, the driver's end of its pipe, and the job it is busy with."""

    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    ready: bool = False


class Processes(Executor):
    """Runs jobs in worker processes, each of which builds its runner once and keeps it warm.

    A worker that dies takes one try of its own job with it and nothing else: a fresh worker takes its place, the
    job is tried again up to `max_retries` times, then it is a failed outcome. Workers end with the driver,
    however the driver ends.

    Args:
        make_runner: called once in each worker; must pickle.
        workers: how many.
        max_retries: tries after the first for a job whose worker died.
        time_limit: seconds after which a job's worker is killed and the job is a failed outcome.
    """

    def __init__(
        self, make_runner: Callable[[], Runner], workers: int, max_retries: int, time_limit: float | None
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._make_runner = make_runner
        self._max_retries = max_retries
        self._time_limit = time_limit
        self._workers = [self._start() for _ in range(workers)]
        self._retries: list[Job] = []
        self._lost_starts = 0

    @property
    def free(self) -> int:
        idle = sum(worker.job is None for worker in self._workers)
        return idle - len(self._retries)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job, worker.since = job, datetime.now(UTC)
        try:
            worker.pipe.send(job)
        except OSError:
            return  # it has just died: collect() sees that and tries the job again

    def collect(self, seconds: float) -> list[Finished]:
        deadline = time.monotonic() + seconds
        while True:
            finished = self._collect_once(max(0.0, min(1.0, deadline - time.monotonic())))
            if finished or time.monotonic() >= deadline:
                return finished

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._make_runner, os.getpid()), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _collect_once(self, seconds: float) -> list[Finished]:
        self._resubmit()
        by_pipe = {worker.pipe: worker for worker in self._workers}
        finished: list[Finished] = []
        for pipe in wait(list(by_pipe), timeout=seconds):
            finished += self._receive(by_pipe[pipe])  # type: ignore[index]
        return finished + self._overdue()

    def _resubmit(self) -> None:
        retries, self._retries = self._retries, []
        for job in retries:
            self.submit(job)

    def _receive(self, worker: _Worker) -> list[Finished]:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if isinstance(message, Exception):
            raise message
        if message is None:
            worker.ready, worker.since, self._lost_starts = True, datetime.now(UTC), 0
            return []
        worker.job = None
        return [message]

    def _lost(self, worker: _Worker) -> list[Finished]:
        """A worker has died: start another, and try its job again or give it up."""
        worker.process.join()
        self._lost_starts += not worker.ready
        if self._lost_starts > _MOST_LOST_STARTS:
            raise TrialError(
                f"{self._lost_starts} worker processes in a row ended before their first trial, the last with "
                f"code {worker.process.exitcode}. Run with --workers 1 to see what the task does."
            )
        self._replace(worker)
        job = worker.job
        if job is None:
            return []
        if not worker.ready:
            self._retries.append(job)  # it was never begun
            return []
        if job.attempt <= self._max_retries:
            self._retries.append(replace(job, attempt=job.attempt + 1))
            return []
        return [self._failed(worker, f"its worker process died (exit code {worker.process.exitcode})")]

    def _overdue(self) -> list[Finished]:
        overdue = [worker for worker in self._workers if worker.job is not None and self._is_overdue(worker)]
        for worker in overdue:
            worker.process.kill()
            worker.process.join()
            self._replace(worker)
        return [self._failed(worker, f"it ran past time_limit = {self._time_limit:g} s") for worker in overdue]

    def _is_overdue(self, worker: _Worker) -> bool:
        running = (datetime.now(UTC) - worker.since).total_seconds()
        return worker.ready and self._time_limit is not None and running > self._time_limit

    def _replace(self, worker: _Worker) -> None:
        worker.pipe.close()
        self._workers[self._workers.index(worker)] = self._start()

    @staticmethod
    def _failed(worker: _Worker, reason: str) -> Finished:
        if worker.job is None:
            raise TrialError("only a busy worker can fail a job")
        return Finished(worker.job, Outcome(State.FAILED, reason=reason), worker.since, datetime.now(UTC))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process that is started here never hears of Ctrl-C, which is the driver's business."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set signal handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, make_runner: Callable[[], Runner], driver: int) -> None:
    """The life of a worker: build the runner once, then a job in, an outcome out, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    try:
        runner = make_runner()
        pipe.send(None)
        while True:
            pipe.send(_timed(runner, pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
    except RankSearchError as error:  # no fault of a trial: the driver raises it and stops
        pipe.send(error)


def _end_with(driver: int) -> None:
    """End this process as soon as the driver's process is gone."""
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)


def trial_seed(rng_seed: int, number: int) -> int:
    """The seed of a trial's random numbers: its own for each number, the same whenever the study is repeated."""
    return (rng_seed * 1_000_003 + number) % 2**31
