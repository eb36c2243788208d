"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, final

from rank_search.basics import unbroken
from rank_search.errors import RankSearchError
from rank_search.launch.executors import Job, carry_out, this_process
from rank_search.launch.pool import MOST_LOST_STARTS, Answer, Pool, Worker
from rank_search.launch.recipe import Found, Loaded, WorkerRecipe


@final
class _ProcessWorker(Worker):
    """A process, the driver's end of its pipe, and how many orders it has been given and has carried out."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        super().__init__(f"{socket.gethostname()}:{process.pid}")
        self.process, self.pipe = process, pipe
        self.given = self.done = 0

    def send(self, order: object) -> None:
        with contextlib.suppress(OSError):  # it has just died: that is heard of
            self.pipe.send(order)

    def give(self, job: Job) -> None:
        self.send(job)

    def kill(self) -> None:
        self.process.kill()

    def clear(self) -> None:
        self.process.join()
        self.pipe.close()

    def answer(self) -> Answer:
        try:
            answer: Answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Answer(died=f"exit code {self.process.exitcode}")
        return answer


@final
class Processes(Pool[_ProcessWorker], Generic[Loaded, Found]):
    """Runs jobs in worker processes.

    The processes start at once, so that they take their first steps while the driver is still busy with what the later
    ones need: `load` has them take the second, `serve` the last. Workers end with the driver, however it ends.

    Args:
        recipe: how each worker comes to its runner.
        workers, time_limit: see `Pool`.
    """

    def __init__(self, recipe: WorkerRecipe[Loaded, Found], workers: int, time_limit: float | None) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._orders: list[Any] = [recipe]  # in the order in which `_work` takes them
        advice = "Run with --workers 1 to see what the task does."
        super().__init__(workers, time_limit, MOST_LOST_STARTS, takes_early=True, advice=advice)

    def load(self) -> Processes[Loaded, Found]:
        """Have each worker load its task, as soon as it can; returns the same object.

        Raises:
            RankSearchError: a step before has raised it, or the workers die.
        """
        self._collect_once(0)
        self._orders.append(None)
        for worker in self._workers:
            if worker.given == len(self._orders) - 1:  # if it is busy, the order waits in its pipe, small as it is
                self._give_order(worker)
        return self

    def serve(self, found: Found) -> Processes[Loaded, Found]:
        """The same with the last step, the runner; what the driver has found may be large, so it is given to a worker
        that is done with the others. Jobs can be submitted from now on."""
        self._collect_once(0)
        self._orders.append(found)
        for worker in self._workers:
            if worker.done == len(self._orders) - 1:
                self._give_order(worker)
        return self

    def _start(self, place: int) -> _ProcessWorker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, os.getpid(), place), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()
        worker = _ProcessWorker(process, ours)
        self._give_order(worker)
        return worker

    def _give_order(self, worker: _ProcessWorker) -> None:
        worker.send(self._orders[worker.given])
        worker.given += 1

    def _answers(self, seconds: float) -> Iterator[tuple[_ProcessWorker, Answer]]:
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout=seconds):
            worker = by_pipe[pipe]  # type: ignore[index]
            answer = worker.answer()
            if answer.is_step:
                self._step_done(worker)
            yield worker, answer

    def _step_done(self, worker: _ProcessWorker) -> None:
        worker.done += 1
        if worker.done == worker.given < len(self._orders):
            self._give_order(worker)


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


def _serve(pipe: Connection, driver: int, place: int) -> None:
    """The life of a worker, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    with unbroken("stdout"), unbroken("stderr"), contextlib.suppress(EOFError, BrokenPipeError):
        _work(pipe, place)


def _work(pipe: Connection, place: int) -> None:
    """Step by step to the runner, each when the driver says so; then a job in, an answer out."""
    try:
        recipe: WorkerRecipe[Any, Any] = pipe.recv()
        recipe.init()
        pipe.send(Answer())
        pipe.recv()
        loaded = recipe.load(place)
        pipe.send(Answer())
        run = recipe.runner(loaded, pipe.recv())
    except RankSearchError as error:  # the driver raises it and stops
        pipe.send(Answer(error=error))
        return
    pipe.send(Answer(ready=this_process()))
    while True:
        job: Job = pipe.recv()
        pipe.send(Answer(finished=carry_out(run, job, this_process())))


def _end_with(driver: int) -> None:
    """End this process as soon as the driver's process is gone."""
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)
