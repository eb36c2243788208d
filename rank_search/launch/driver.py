"""The driver: asks for points, claims them, has them tried, records what came of them, and tells the searcher.

Recording comes before telling: whatever happens in between, the store has it. A driver that is killed leaves claims
behind; the next one takes them over under the same numbers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rank_search.fronts import Claim, Store, StudyRecord, TrialRow, dominates, hypervolume
from rank_search.launch.executors import Executor, Finished, Job, trial_seed
from rank_search.launch.progress import Progress
from rank_search.point import Bound, Outcome, Point, State
from rank_search.search import Past, Searcher, check

HEARTBEAT: Final = timedelta(seconds=15)
EXPIRED: Final = timedelta(seconds=90)
PATIENCE: Final = timedelta(seconds=1)

Judge = Callable[[Point], Outcome | None]
"""The outcome of a point that need not be trained, None for one that must be."""


@dataclass(frozen=True)
class Plan:
    """What a driver is to do.

    Attributes:
        target: finished trials to reach in all, by whomever.
        budget: epochs of each trial.
        rng_seed: of the study.
        constraints: bounds that a complete trial must keep to count as feasible.
        judge: says which points are infeasible before training.
        max_retries: how often a trial is taken over after its driver died in it.
        artifacts: the study's artifact folder.
    """

    target: int
    budget: float
    rng_seed: int
    constraints: tuple[Bound, ...]
    judge: Judge
    max_retries: int
    artifacts: Path


class Driver:
    """One driver of one study; several may work on the same store."""

    def __init__(
        self,
        store: Store,
        study: StudyRecord,
        searcher: Searcher,
        executor: Executor,
        plan: Plan,
        report: Callable[[Progress], None],
    ) -> None:
        self._store, self._study, self._searcher = store, study, searcher
        self._executor, self._plan, self._report = executor, plan, report
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._held: dict[int, Claim] = {}
        self._states: Counter[State] = Counter()
        self._front: list[TrialRow] = []
        self._begun, self._done_here = time.monotonic(), 0
        self._exhausted = False

    @property
    def done_here(self) -> int:
        """How many trials this driver has recorded."""
        return self._done_here

    def run(self) -> bool:
        """Go on until the target is reached; False if the space was exhausted before.

        Several drivers reach the target together and exactly: each waits for the trials that the others have in
        flight, and takes over those of one that dies. Interrupted (Ctrl-C, an error, anything), it gives its claims
        up, so that the next driver takes them at once.
        """
        self._catch_up()
        self._learn_claims()
        self._show()
        try:
            with self._heartbeat():
                return self._until_done()
        finally:
            self._executor.close()
            with contextlib.suppress(Exception):  # the reason for stopping matters more
                self._store.release(self._study, self._held.values())

    def _until_done(self) -> bool:
        while True:
            self._fill()
            if self._held:
                for finished in self._executor.collect(seconds=5):
                    self._record(self._held[finished.job.number], finished)
            elif self._finished >= self._plan.target:
                return True
            elif self._exhausted:
                return False
            else:
                self._wait_for_others()

    def _wait_for_others(self) -> None:
        time.sleep(PATIENCE.total_seconds())
        self._catch_up()
        self._show()

    @property
    def _finished(self) -> int:
        return sum(self._states.values())

    def _catch_up(self) -> None:
        """Learn of every trial that was recorded since the last time, by this driver or another."""
        rows = self._store.trials(self._study, skip=self._finished)
        self._searcher.feed(Past(row.number, row.point, row.sampler, outcome_of(row)) for row in rows)
        self._states.update(row.state for row in rows)
        self._keep_front(rows)

    def _learn_claims(self) -> None:
        """Learn which trials others have in flight."""
        claims = self._store.claims(self._study)
        self._searcher.feed(Past(each.number, each.point, each.sampler) for each in claims)

    def _fill(self) -> None:
        """Give every free slot a job, as far as there is one to be had."""
        while self._executor.free > 0 and self._finished + len(self._held) < self._plan.target:
            claim = self._take_over() or self._claim_next()
            if claim is None:
                return
            self._held[claim.number] = claim
            self._start(claim)

    def _take_over(self) -> Claim | None:
        return self._store.take_over(
            self._study, self._worker, expired_before=datetime.now(UTC) - EXPIRED, dead=died_here
        )

    def _claim_next(self) -> Claim | None:
        """Claim the searcher's next point; another driver may have been faster with the same one.

        None if every number has been given, or the searcher has no further point.
        """
        while not self._exhausted and (number := self._store.next_number(self._study)) < self._plan.target:
            suggestion = self._searcher.ask(number)
            if suggestion is None:
                self._exhausted = True
                return None
            claim = self._store.claim(
                self._study, suggestion.point, self._worker, suggestion.sampler, below=self._plan.target
            )
            if claim is not None:
                return claim
            self._searcher.withdraw(suggestion)
            self._catch_up()
            self._learn_claims()
        return None

    def _start(self, claim: Claim) -> None:
        job = Job(claim.number, claim.point, trial_seed(self._plan.rng_seed, claim.number), claim.attempt)
        outcome = self._plan.judge(claim.point)
        if outcome is None and claim.attempt > self._plan.max_retries + 1:
            outcome = Outcome(State.FAILED, reason=f"its process died in each of {claim.attempt - 1} tries")
        if outcome is None:
            self._executor.submit(job)
        else:
            now = datetime.now(UTC)
            self._record(claim, Finished(job, outcome, now, now))

    def _record(self, claim: Claim, finished: Finished) -> None:
        self._store.record(
            self._study,
            claim,
            self._feasible(finished.outcome),
            budget=self._plan.budget,
            rng_seed=finished.job.rng_seed,
            started=finished.started,
            finished=finished.finished,
        )
        del self._held[claim.number]
        self._done_here += 1
        self._catch_up()
        self._show()

    def _feasible(self, outcome: Outcome) -> Outcome:
        """A complete trial that breaks a measured constraint is infeasible."""
        if outcome.state is not State.COMPLETE:
            return outcome
        broken = check(self._plan.constraints, outcome.measurements, self._study.dense)
        if not broken:
            return outcome
        return Outcome(State.INFEASIBLE, outcome.measurements, "; ".join(broken), outcome.artifacts)

    def _keep_front(self, rows: list[TrialRow]) -> None:
        """Let newcomers onto the front, and let go of the files of all that are not, or no longer, on it.

        The store has judged them already; this repeats it for those that a newcomer pushes off, instead of reading
        the whole front after every trial.
        """
        newcomers = [row for row in rows if self._is_member(row)]
        beaten = {
            member.number
            for member in self._front
            for newcomer in newcomers
            if dominates(self._losses(newcomer), self._losses(member))
        }
        gone = [row for row in (*rows, *self._front) if row.number in beaten or not self._is_member(row)]
        stay = [member for member in self._front if member.number not in beaten]
        self._front = sorted([*stay, *newcomers], key=self._losses)
        for row in gone:
            self._let_go(row)

    def _is_member(self, row: TrialRow) -> bool:
        return row.state is State.COMPLETE and row.budget == self._study.budget and row.dominated_by is None

    def _losses(self, row: TrialRow) -> tuple[float, ...]:
        return tuple(row.losses[name] for name in self._study.objective_names)

    def _let_go(self, row: TrialRow) -> None:
        for artifact in self._store.forget_artifacts(self._study, row.number) if row.artifacts else ():
            (self._plan.artifacts / artifact.location).unlink(missing_ok=True)

    def _show(self) -> None:
        self._report(
            Progress(
                study=self._study,
                target=self._plan.target,
                states=dict(self._states),
                in_flight=len(self._held),
                front=tuple(self._front),
                hypervolume=hypervolume_of(self._study, list(map(self._losses, self._front))),
                seconds=time.monotonic() - self._begun,
                seconds_left=self._seconds_left(),
            )
        )

    def _seconds_left(self) -> float | None:
        if not self._done_here:
            return None
        pace = (time.monotonic() - self._begun) / self._done_here
        return pace * max(0, self._plan.target - self._finished)

    @contextlib.contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Keep the claims alive from a thread of its own: a trial may take longer than a claim lasts."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT.total_seconds()):
                with contextlib.suppress(Exception):  # the store may be away for a while; recording will tell
                    self._store.heartbeat(self._study, list(self._held.values()))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def outcome_of(row: TrialRow) -> Outcome:
    """What came of a recorded trial."""
    return Outcome(row.state, row.measurements, row.reason, row.artifacts)


def hypervolume_of(study: StudyRecord, losses: Sequence[Sequence[float]]) -> float:
    """Hypervolume of losses between the study's ideal and its reference point, as a share of that box."""
    reference = [study.reference_point[name] for name in study.objective_names]
    ideal = [study.ideal[name] for name in study.objective_names]
    return hypervolume(losses, reference, ideal) if losses else 0.0


def died_here(worker: str) -> bool:
    """Whether a driver ran on this machine and its process is gone."""
    host, _, pid = worker.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
