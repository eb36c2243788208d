"""Where trials run: what every executor takes and gives, and the simplest one, the driver itself."""

from __future__ import annotations

import os
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import final

from rank_search.errors import LaunchError, RankSearchError
from rank_search.point import Artifact, Outcome, Point, State


@dataclass(frozen=True)
class Job:
    """One trial to run, or to resume; or a finished one whose model is to be measured on the test data.

    Attributes:
        budget: epochs to train to.
        attempt: the how-manieth try it is.
        checkpoint: where to go on from; None: from the beginning.
        trained: the finished trial's model: nothing is trained any more.
        mark: stands for all that the training is made from and with; the checkpoints on its way have it.
        checkpoint_seconds: between two of them; 0: there are none.
        spared: the tries, up to this one, that do not count: one of them has left the checkpoint to go on from.
    """

    number: int
    point: Point
    rng_seed: int
    budget: float
    attempt: int = 1
    checkpoint: Artifact | None = None
    trained: Artifact | None = None
    mark: str = ""
    checkpoint_seconds: float = 0.0
    spared: int = 0


@dataclass(frozen=True)
class Finished:
    """A job that ended: when it began and ended (UTC, by its worker's clock as it was at the beginning), and where it
    ran.

    `trouble` is what kept it from being carried out, not through the trial's fault: it is worth another try.
    """

    job: Job
    outcome: Outcome
    started: datetime
    finished: datetime
    worker: str
    trouble: RankSearchError | None = None


Runner = Callable[[Job], Outcome]
"""Runs one trial; what goes wrong in it is an outcome, what goes wrong around it a `RankSearchError`."""


class Executor(ABC):
    """Takes jobs while it has free slots and gives each back once, finished, in any order."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many workers are alive and ready."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many more jobs it takes now."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job; there must be a free slot."""

    @abstractmethod
    def collect(self, seconds: float) -> list[Finished]:
        """Jobs that have ended; waits at most that long for the first, or for a slot to become free."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything at once; jobs in flight are lost."""


@final
class InProcess(Executor):
    """Runs each job in the driver, when it is collected."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._waiting: list[Job] = []

    @property
    def workers(self) -> int:
        return 1

    @property
    def free(self) -> int:
        return 1 - len(self._waiting)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def collect(self, seconds: float) -> list[Finished]:
        jobs, self._waiting = self._waiting, []
        return [carry_out(self._runner, job, this_process()) for job in jobs]

    def close(self) -> None:
        self._waiting.clear()


def all_of(executor: Executor, jobs: Iterable[Job], max_retries: int) -> Iterator[Finished]:
    """Have each job carried out, and give it back when it is; one whose worker died is tried again.

    Raises:
        RankSearchError: a job cannot be carried out.
    """
    waiting, busy = deque(jobs), 0
    while waiting or busy:
        while waiting and executor.free:
            executor.submit(waiting.popleft())
            busy += 1
        for finished in executor.collect(seconds=5):
            busy -= 1
            if isinstance(finished.trouble, LaunchError) and finished.job.attempt <= max_retries:
                waiting.append(replace(finished.job, attempt=finished.job.attempt + 1))
            elif finished.trouble is not None:
                raise finished.trouble
            else:
                yield finished


def carry_out(runner: Runner, job: Job, worker: str) -> Finished:
    """Run the job here, and note when and where, and what went wrong around it."""
    started, begun = datetime.now(UTC), time.monotonic()
    try:
        outcome, trouble = runner(job), None
    except RankSearchError as error:
        outcome, trouble = Outcome(State.FAILED, reason=str(error)), error
    return Finished(job, outcome, started, started + timedelta(seconds=time.monotonic() - begun), worker, trouble)


def cut_short(job: Job, begun: float, reason: str, worker: str, trouble: RankSearchError | None = None) -> Finished:
    """A job that did not come to its end; `begun`: when it was given out, on the monotonic clock."""
    now = datetime.now(UTC)
    started = now - timedelta(seconds=time.monotonic() - begun)
    return Finished(job, Outcome(State.FAILED, reason=reason), started, now, worker, trouble)


def this_process() -> str:
    """The name of this process among all that work on a study."""
    return f"{socket.gethostname()}:{os.getpid()}"


def trial_seed(rng_seed: int, number: int) -> int:
    """The seed of a trial's random numbers: its own for each number, the same whenever the study is repeated."""
    return (rng_seed * 1_000_003 + number) % 2**31
