"""A study that things happen to: its files, what its store and processes say, and what must hold at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, TypeVar

from rank_search.errors import QueryError
from rank_search.point import State
from rank_search.store import Claim, Store, TrialRow
from tests.store.store_tools import slow_front
from tests.story.forks import Forks, Run, processes
from tests.story.small import Small, write_study

HERE: Final = Path(__file__).parent
COUNT: Final = 12
HALFWAY: Final = 10
"""Of the 20 batches that a trial trains on."""
T = TypeVar("T")
LONG: Final = 300.0
"""Seconds: more than anything here takes on a busy machine."""


def wait_for(condition: Callable[[], T], seconds: float = LONG) -> T:
    """Ask now and then, for whoever asks all the time is in the way: the first answer that holds.

    What is true at one moment need not be at the next: who acts on an answer takes it from here and does not ask again.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.2)
    return answer


@dataclass(frozen=True)
class Case:
    """A study of trials that last a second or so; `url` leads to its store, whatever way the driver takes."""

    forks: Forks
    small: Small
    url: str
    store: Store
    running: list[Run] = field(default_factory=list)

    @property
    def files(self) -> Path:
        """Where trials leave their files."""
        (folder,) = (self.small.folder / "files").glob("stripes-*[0-9a-f]")
        return folder

    # drivers ---------------------------------------------------------------------------------------------

    def start(self, *options: object) -> Run:
        run = self.forks.start("run", self.small.file, *options, folder=self.small.folder)
        self.running.append(run)
        return run

    def finish(self, *options: object) -> Run:
        """The command, which reaches its count."""
        run = self.start(*options)
        self.assert_ends(run)
        return run

    def assert_ends(self, run: Run, code: int = 0) -> None:
        wait_for(lambda: run.pid not in processes())
        self.running.remove(run)
        assert run.wait() == code, run.printed

    def kill(self, run: Run) -> None:
        """Kill the driver, and let nobody take it for alive."""
        os.kill(run.pid, signal.SIGKILL)
        self.running.remove(run)
        assert run.wait() == -signal.SIGKILL, run.printed

    def end_all(self) -> None:
        """Kill what a failed test has left running."""
        for run in self.running:
            with suppress(ProcessLookupError):
                run.signal_group(signal.SIGKILL)

    # what the store says ---------------------------------------------------------------------------------

    def rows(self) -> list[TrialRow]:
        """All finished trials; none if there is no study yet."""
        try:
            return self.store.trials(self.store.study("stripes"))
        except QueryError:
            return []

    def claims(self) -> list[Claim]:
        """The trials in flight."""
        try:
            return self.store.claims(self.store.study("stripes"))
        except QueryError:
            return []

    def wait_for_trials(self, count: int) -> list[TrialRow]:
        """Wait until so many have finished, and some are being trained."""
        wait_for(lambda: len(self.rows()) >= count and bool(self.training()))
        return self.rows()

    # what the processes do -------------------------------------------------------------------------------

    def trainers(self) -> dict[int, list[str]]:
        """The trace of each process that has ever trained or measured anything."""
        return {int(path.name): path.read_text().split() for path in (self.small.folder / "trace").glob("[0-9]*")}

    def training(self, apart_from: Collection[int] = ()) -> list[int]:
        """Living processes in the middle of a training, and not about to be done with it."""
        alive = processes().keys() - set(apart_from)
        return [pid for pid, trace in self.trainers().items() if pid in alive and 0 < _losses(trace) <= HALFWAY]

    def kill_worker(self, run: Run) -> int:
        """Kill a worker in a trial."""
        victim = wait_for(lambda: self.training(apart_from=[run.pid]))[0]
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in processes())
        return victim

    # what must hold --------------------------------------------------------------------------------------

    def assert_sound(self, count: int = COUNT, before: Sequence[TrialRow] = ()) -> list[TrialRow]:
        """So many trials, each once, those of before unchanged; their front, their files, and nothing left behind."""
        rows, front = self.rows(), self.store.front(self.store.study("stripes"))
        assert self.claims() == []
        check = self.forks.start("check", self.url, "stripes")
        assert check.wait() == 0, check.printed
        assert sorted(row.number for row in rows) == list(range(count))
        assert len({row.point.key for row in rows}) == count
        now = {row.number: kept(row) for row in rows}
        assert {row.number: kept(row) for row in before} == {row.number: now[row.number] for row in before}
        complete = [row for row in rows if row.state is State.COMPLETE]
        best = slow_front([list(row.losses.values()) for row in complete])
        assert {row.number for row in front} == {complete[place].number for place in best}
        self._assert_files(rows, front)
        wait_for(lambda: not self.trainers().keys() & processes().keys())
        return rows

    def _found(self) -> set[str]:
        return {path.name for path in self.files.iterdir() if path.is_file()}

    def _assert_files(self, rows: Sequence[TrialRow], front: Sequence[TrialRow]) -> None:
        known = {artifact.location for row in rows for artifact in row.artifacts}
        if self._found() != known:  # what processes left that were killed in the last run goes with the next one
            self.finish()
        assert self._found() == known, self._found() ^ known
        stopped = {row.number for row in rows if row.state is State.STOPPED}
        assert {row.number for row in rows if row.artifacts} - stopped == {row.number for row in front}


def _losses(trace: Sequence[str]) -> int:
    """On how many batches a process has trained since it last measured anything."""
    return len(list(takewhile(lambda line: line == "loss", reversed(trace))))


def kept(row: TrialRow) -> tuple[Any, ...]:
    """What of a finished trial never changes: all but its files and what is measured after the search."""
    measured = {name: value for name, value in row.measurements.items() if not name.startswith("test_")}
    return (row.id, row.point.key, row.state, measured, row.rng_seed, row.attempt, row.worker, row.finished, row.reason)


def in_flight(claims: Sequence[Claim]) -> set[tuple[int, str]]:
    return {(each.number, each.point.key) for each in claims}


def write_case(folder: Path, url: str, launch: Mapping[str, Any], **changes: dict[str, Any]) -> Small:
    """Write the study, its tables changed key by key."""
    tables: dict[str, dict[str, Any]] = {
        "study": {"trials": COUNT, "store": url, "artifacts": str(folder / "files")},
        "task": {"factory": "trouble.py:troubled", "options": {"pause": 0.05}},
        "training": {"epochs": 10},
        "launch": {"max_retries": 5, **launch},
    }
    for table, keys in changes.items():
        tables.setdefault(table, {}).update(keys)
    small = write_study(folder, **tables)
    (folder / "trouble.py").write_text((HERE / "trouble.py").read_text(encoding="utf-8"), encoding="utf-8")
    return small
