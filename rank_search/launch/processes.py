"""Worker processes on this machine, which outlive one trial and not the driver."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, final

from rank_search.basics import unbroken
from rank_search.errors import LaunchError, RankSearchError
from rank_search.launch.executors import Executor, Finished, Job, carry_out, cut_short, this_process
from rank_search.observe import logs

MOST_LOST_STARTS: Final = 2

Step = Callable[[Any], Any]
"""Something that a worker does before its first job, with what it made in the step before; the first is given None."""

_STEP_DONE: Final = "step done"


@dataclass
class _ProcessWorker:
    """A process, the driver's end of its pipe, how many steps it has been given and has done, and the job it is busy
    with, or will be."""

    process: BaseProcess
    pipe: Connection
    given: int = 0
    done: int = 0
    job: Job | None = None
    since: float = field(default_factory=time.monotonic)
    ready: bool = False

    def send(self, order: Step | Job) -> None:
        with contextlib.suppress(OSError):  # it has just died: collect() sees that
            self.pipe.send(order)

    @property
    def name(self) -> str:
        return f"{socket.gethostname()}:{self.process.pid}"


@final
class Processes(Executor):
    """Runs jobs in worker processes, each of which makes its runner once, step by step, and keeps it warm.

    The processes start at once, so that they do their first steps while the driver is still busy with what the later
    ones need: `then` adds one, `serve` adds the last, whose result is the runner. Steps must pickle. A worker is given
    a job when it has done all steps.

    A worker that dies takes its own job with it and nothing else: the job comes back with a `LaunchError`, and a
    fresh worker takes the place. Workers end with the driver, however the driver ends.

    Args:
        first: the first step of each worker.
        workers: how many.
        time_limit: seconds after which a job's worker is killed and the job is a failed outcome.
    """

    def __init__(self, first: Step, workers: int, time_limit: float | None) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._steps, self._serving = [first], False
        self._time_limit = time_limit
        self._workers = [self._start() for _ in range(workers)]
        self._lost_starts = 0

    def then(self, step: Step) -> Processes:
        """What each worker does next, by itself; returns the same object.

        The step waits in the pipe of a worker that is busy, so it must be small.

        Raises:
            RankSearchError: a step before has raised it, or the workers die.
        """
        self._collect_once(0)  # has one died?
        self._steps.append(step)
        for worker in self._workers:
            if worker.given == len(self._steps) - 1:
                self._give_step(worker)
        return self

    def serve(self, last: Step) -> Processes:
        """The same with the last step, which returns the runner and may be large: it is given to a worker that is done
        with the others. Jobs can be submitted from now on."""
        self._collect_once(0)
        self._steps.append(last)
        for worker in self._workers:
            if worker.done == len(self._steps) - 1:
                self._give_step(worker)
        self._serving = True  # only now: before, whoever had done all steps was not done with this one
        return self

    @property
    def workers(self) -> int:
        return sum(worker.ready for worker in self._workers)

    @property
    def free(self) -> int:
        return sum(worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if worker.job is None)
        self._assign(worker, job)

    def _assign(self, worker: _ProcessWorker, job: Job) -> None:
        """A worker that is not ready gets its job when it is."""
        worker.job, worker.since = job, time.monotonic()
        if worker.ready:
            worker.send(job)

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

    def _start(self) -> _ProcessWorker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()
        worker = _ProcessWorker(process, ours)
        self._give_step(worker)
        return worker

    def _give_step(self, worker: _ProcessWorker) -> None:
        worker.send(self._steps[worker.given])
        worker.given += 1

    def _collect_once(self, seconds: float) -> list[Finished]:
        by_pipe = {worker.pipe: worker for worker in self._workers}
        finished: list[Finished] = []
        for pipe in wait(list(by_pipe), timeout=seconds):
            finished += self._receive(by_pipe[pipe])  # type: ignore[index]
        return finished + self._overdue()

    def _receive(self, worker: _ProcessWorker) -> list[Finished]:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if isinstance(message, Exception):
            raise message
        if message == _STEP_DONE:
            self._step_done(worker)
            return []
        worker.job = None
        return [message]

    def _step_done(self, worker: _ProcessWorker) -> None:
        worker.done += 1
        if worker.done < len(self._steps):
            if worker.done == worker.given:
                self._give_step(worker)
        elif self._serving:
            worker.ready, self._lost_starts = True, 0
            logs.worker_started(worker.name)
            if worker.job is not None:
                self._assign(worker, worker.job)

    def _lost(self, worker: _ProcessWorker) -> list[Finished]:
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
        successor = self._replace(worker)
        if worker.job is None:
            return []
        if not worker.ready:  # it was never begun
            successor.job = worker.job
            return []
        return [cut_short(worker.job, worker.since, died, worker.name, LaunchError(died))]

    def _overdue(self) -> list[Finished]:
        finished = []
        for worker in list(self._workers):
            if worker.job is not None and self._is_overdue(worker):
                worker.process.kill()
                worker.process.join()
                self._replace(worker)
                reason = f"it ran past time_limit = {self._time_limit:g} s"
                finished.append(cut_short(worker.job, worker.since, reason, worker.name))
        return finished

    def _is_overdue(self, worker: _ProcessWorker) -> bool:
        running = time.monotonic() - worker.since
        return worker.ready and self._time_limit is not None and running > self._time_limit

    def _replace(self, worker: _ProcessWorker) -> _ProcessWorker:
        worker.pipe.close()
        successor = self._start()
        self._workers[self._workers.index(worker)] = successor
        return successor


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


def _serve(pipe: Connection, driver: int) -> None:
    """The life of a worker: step by step to the runner, then a job in, an outcome out, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    with unbroken("stdout"), unbroken("stderr"):
        _work(pipe)


def _work(pipe: Connection) -> None:
    try:
        made: Any = None
        while not isinstance(order := pipe.recv(), Job):
            made = order(made)
            pipe.send(_STEP_DONE)
        while True:
            pipe.send(carry_out(made, order, this_process()))
            order = pipe.recv()
    except (EOFError, BrokenPipeError):
        return
    except RankSearchError as error:  # the runner cannot be made: the driver raises it and stops
        pipe.send(error)


def _end_with(driver: int) -> None:
    """End this process as soon as the driver's process is gone."""
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)
