"""Worker processes on this machine, which outlive one trial and not the driver."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, final

from rank_search import logs
from rank_search.errors import LaunchError, RankSearchError
from rank_search.launch.executors import Executor, Finished, Job, Runner, carry_out, this_process
from rank_search.point import Outcome, State

MOST_LOST_STARTS: Final = 2


@dataclass
class _Worker:
    """A process, the driver's end of its pipe, and the job it is busy with."""

    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    ready: bool = False

    @property
    def name(self) -> str:
        return f"{socket.gethostname()}:{self.process.pid}"


@final
class Processes(Executor):
    """Runs jobs in worker processes, each of which builds its runner once and keeps it warm.

    A worker that dies takes its own job with it and nothing else: the job comes back with a `LaunchError`, and a
    fresh worker takes the place. Workers end with the driver, however the driver ends.

    Args:
        make_runner: called once in each worker; must pickle.
        workers: how many.
        time_limit: seconds after which a job's worker is killed and the job is a failed outcome.
    """

    def __init__(self, make_runner: Callable[[], Runner], workers: int, time_limit: float | None) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._make_runner = make_runner
        self._time_limit = time_limit
        self._workers = [self._start() for _ in range(workers)]
        self._never_begun: list[Job] = []
        self._lost_starts = 0

    @property
    def workers(self) -> int:
        return sum(worker.ready for worker in self._workers)

    @property
    def free(self) -> int:
        idle = sum(worker.job is None for worker in self._workers)
        return idle - len(self._never_begun)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job, worker.since = job, datetime.now(UTC)
        try:
            worker.pipe.send(job)
        except OSError:
            return  # it has just died: collect() sees that

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
        jobs, self._never_begun = self._never_begun, []
        for job in jobs:
            self.submit(job)
        by_pipe = {worker.pipe: worker for worker in self._workers}
        finished: list[Finished] = []
        for pipe in wait(list(by_pipe), timeout=seconds):
            finished += self._receive(by_pipe[pipe])  # type: ignore[index]
        return finished + self._overdue()

    def _receive(self, worker: _Worker) -> list[Finished]:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if isinstance(message, Exception):
            raise message
        if message is None:
            worker.ready, worker.since, self._lost_starts = True, datetime.now(UTC), 0
            logs.worker_started(worker.name)
            return []
        worker.job = None
        return [message]

    def _lost(self, worker: _Worker) -> list[Finished]:
        """A worker has died: start another, and give its job back; one that was never begun is begun again."""
        worker.process.join()
        self._lost_starts += not worker.ready
        if self._lost_starts > MOST_LOST_STARTS:
            raise LaunchError(
                f"{self._lost_starts} worker processes in a row ended before their first trial, the last with "
                f"code {worker.process.exitcode}. Run with --workers 1 to see what the task does."
            )
        died = f"its worker process died (exit code {worker.process.exitcode})"
        logs.worker_died(worker.name, died)
        self._replace(worker)
        if worker.job is None:
            return []
        if not worker.ready:
            self._never_begun.append(worker.job)
            return []
        return [_failed(worker, worker.job, died, LaunchError(died))]

    def _overdue(self) -> list[Finished]:
        finished = []
        for worker in list(self._workers):
            if worker.job is not None and self._is_overdue(worker):
                worker.process.kill()
                worker.process.join()
                self._replace(worker)
                finished.append(_failed(worker, worker.job, f"it ran past time_limit = {self._time_limit:g} s"))
        return finished

    def _is_overdue(self, worker: _Worker) -> bool:
        running = (datetime.now(UTC) - worker.since).total_seconds()
        return worker.ready and self._time_limit is not None and running > self._time_limit

    def _replace(self, worker: _Worker) -> None:
        worker.pipe.close()
        self._workers[self._workers.index(worker)] = self._start()


def _failed(worker: _Worker, job: Job, reason: str, trouble: LaunchError | None = None) -> Finished:
    outcome = Outcome(State.FAILED, reason=reason)
    return Finished(job, outcome, worker.since, datetime.now(UTC), worker.name, trouble)


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
            pipe.send(carry_out(runner, pipe.recv(), this_process()))
    except (EOFError, BrokenPipeError):
        return
    except RankSearchError as error:  # the runner cannot be made: the driver raises it and stops
        pipe.send(error)


def _end_with(driver: int) -> None:
    """End this process as soon as the driver's process is gone."""
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)
