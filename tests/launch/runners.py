"""Jobs and runners for the tests of executors.

Every worker imports this module: it imports little, so that they start quickly.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from rank_search.errors import ArtifactError, TrialError
from rank_search.launch import Job, Processes, Runner, WorkerRecipe
from rank_search.launch.executors import trial_seed
from rank_search.point import Outcome, Point, State


def jobs(count: int) -> list[Job]:
    return [Job(number, Point({}), trial_seed(0, number), budget=1.0) for number in range(count)]


@final
@dataclass(frozen=True)
class Made(WorkerRecipe[str, str]):
    """A runner that is made by a function; each step gets what the one before has made."""

    make: Callable[[], Runner]

    def init(self) -> None:
        return

    def load(self, place: int) -> str:
        return "loaded"

    def runner(self, loaded: str, found: str) -> Runner:
        assert (loaded, found) == ("loaded", "found")
        return self.make()


def processes(make: Callable[[], Runner], workers: int = 2, limit: float | None = None) -> Processes[str, str]:
    return Processes(Made(make), workers, limit).load().serve("found")


def answer(job: Job) -> Outcome:
    return Outcome(State.COMPLETE, {"number": float(job.number), "attempt": float(job.attempt)})


def make_answer() -> Runner:
    return answer


def die_on_the_first_try(job: Job) -> Outcome:
    if job.number == 1 and job.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(job)


def make_deadly() -> Runner:
    return die_on_the_first_try


def always_die(job: Job) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return answer(job)


def make_always_deadly() -> Runner:
    return always_die


def hang(job: Job) -> Outcome:
    if job.number == 0:
        time.sleep(600)
    return answer(job)


def make_hanging() -> Runner:
    return hang


def stuck(job: Job) -> Outcome:
    """Holds the interpreter in C code, where no signal handler of Python runs."""
    if job.number == 0:
        re.match(r"(a+)+$", "a" * 40 + "b")
    return answer(job)


def make_stuck() -> Runner:
    return stuck


def slow(job: Job) -> Outcome:
    time.sleep(1.5)
    return answer(job)


def make_slow() -> Runner:
    return slow


def die_at_the_start() -> Runner:
    os._exit(3)


def raise_at_the_start() -> Runner:
    raise TrialError("no task here")


def full_disk(job: Job) -> Outcome:
    raise ArtifactError("no space left")


def make_full_disk() -> Runner:
    return full_disk


def make_writer(path: str) -> Runner:
    return partial(write_and_hang, path)


def write_and_hang(path: str, job: Job) -> Outcome:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(600)
    return answer(job)


@final
@dataclass(frozen=True)
class Logged(WorkerRecipe[Path, str]):
    """Each step writes its name into a file of the process."""

    path: str

    def init(self) -> None:
        self._log().write_text("init\n")

    def load(self, place: int) -> Path:
        return write(self._log(), f"load-{place}")

    def runner(self, loaded: Path, found: str) -> Runner:
        write(loaded, found)
        return die_on_the_first_try

    def _log(self) -> Path:
        return Path(f"{self.path}-{os.getpid()}")


def write(log: Path, word: str) -> Path:
    with log.open("a") as file:
        file.write(f"{word}\n")
    return log


@final
@dataclass(frozen=True)
class Raising(WorkerRecipe[None, None]):
    """The step of that name raises."""

    step: str

    def init(self) -> None:
        self._raise_in("init")

    def load(self, place: int) -> None:
        self._raise_in("load")

    def runner(self, loaded: None, found: None) -> Runner:
        self._raise_in("runner")
        return answer

    def _raise_in(self, step: str) -> None:
        if step == self.step:
            raise_at_the_start()
