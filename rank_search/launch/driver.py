"""The driver: asks for points, claims them, has them tried, records what came of them, and tells the source.

Recording comes before telling: whatever happens in between, the store has it. A driver that is killed leaves claims
behind; the next one takes them over under the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from rank_search import logs
from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError, LaunchError
from rank_search.fronts import Claim, Store, StudyRecord, TrialRow, hypervolume
from rank_search.launch.executors import Executor, Finished, Job, this_process, trial_seed
from rank_search.launch.failures import Failures
from rank_search.launch.known import Known
from rank_search.launch.progress import Progress, Report, going_on
from rank_search.launch.pulses import Pulses, beating
from rank_search.launch.watchers import Watcher
from rank_search.launch.workers import died_here, driver_name
from rank_search.point import Artifact, Bound, Outcome, Point, State
from rank_search.search import Past, Rungs, Source, check

PATIENCE: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)

Judge = Callable[[Point], Outcome | None]
"""The outcome of a point that need not be trained, None for one that must be."""


@dataclass(frozen=True)
class Plan:
    """What a driver is to do.

    Attributes:
        target: finished trials to reach in all, by whomever.
        rungs: the budgets that a trial is measured at, in epochs; the last is the full one.
        rng_seed: of the study.
        constraints: bounds that a complete trial must keep to count as feasible.
        judge: says which points are infeasible before training.
        max_retries: how often a trial is tried again after its driver or its worker died in it.
        artifacts: where the study's files are.
        patience: seconds to wait for room in there.
        max_failures: how many trials in a row may fail; 0: any number.
    """

    target: int
    rungs: Rungs
    rng_seed: int
    constraints: tuple[Bound, ...]
    judge: Judge
    max_retries: int
    artifacts: ArtifactStore
    patience: float = 0.0
    max_failures: int = 0


class Driver:
    """One driver of one study; several may work on the same store."""

    def __init__(
        self,
        store: Store,
        study: StudyRecord,
        source: Source,
        executor: Executor,
        plan: Plan,
        report: Report,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self._store, self._study, self._source = store, study, source
        self._executor, self._plan, self._report = executor, plan, going_on(report)
        self._watchers = tuple(watchers)
        self._worker = driver_name()
        self._held: dict[int, Claim] = {}
        self._pulses = Pulses()
        self._again: list[Job] = []
        self._failures = Failures(plan.max_failures)
        self._known = Known(study)
        self._elsewhere: set[int] = set()
        self._begun, self._done_here = time.monotonic(), 0
        self._next_look = 0.0  # for claims that nobody keeps alive: all are read for that
        self._exhausted = False

    @property
    def done_here(self) -> int:
        """How many trials this driver has recorded."""
        return self._done_here

    def run(self) -> bool:
        """Go on until the target is reached; False if the space was exhausted before.

        Several drivers reach the target together and exactly: each waits for the trials that the others have in
        flight, and takes over those of one that dies. Interrupted (Ctrl-C, an error, anything), it closes the executor
        and gives its claims up, so that the next driver takes them at once.
        """
        self._store.aim(self._study, self._plan.target)
        self._catch_up()
        self._learn_claims()
        self._show()
        logs.study_joined(self._store.location, self._plan.target, self._known.finished)
        complete = False
        try:
            with beating(self._store, self._study, lambda: list(self._held.values()), self._pulses):
                try:
                    complete = self._until_done()
                    return complete
                except BaseException:
                    self._store.wait_no_longer()  # else the heartbeat would, and the release
                    raise
        except BaseException:
            self._executor.close()
            raise
        finally:
            logs.driver_done(complete, self._done_here, time.monotonic() - self._begun)
            self._tell(lambda watcher: watcher.close())
            with contextlib.suppress(Exception):  # the reason for stopping matters more
                self._store.release(self._study, self._held.values())

    def _until_done(self) -> bool:
        while True:
            self._fill()
            if self._held or not self._executor.free:  # nothing held and nothing free: workers are starting
                for finished in self._executor.collect(seconds=5):
                    self._settle(finished)
            elif self._known.finished >= self._plan.target:
                return True
            elif self._exhausted:
                return False
            else:
                self._wait_for_others()

    def _wait_for_others(self) -> None:
        time.sleep(PATIENCE.total_seconds())
        self._catch_up()
        self._learn_claims()
        self._show()

    # what there is to do ---------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give every free slot a job, as far as there is one to be had."""
        while self._executor.free > 0:
            if self._again:
                self._submit(self._again.pop())
            elif (claim := self._next_claim()) is not None:
                self._held[claim.number] = claim
                self._start(claim)
            else:
                return

    def _next_claim(self) -> Claim | None:
        """A trial of a driver that died, else one that goes on to a larger budget, else a new one."""
        claim = self._take_over() or self._promote() if self._short or len(self._plan.rungs.budgets) > 1 else None
        return claim or (self._claim_next() if self._short else None)

    @property
    def _short(self) -> bool:
        """Whether the trials that have finished and those in flight here do not make up the target."""
        return len(self._known.numbers | self._held.keys()) < self._plan.target

    def _take_over(self) -> Claim | None:
        """A claim that was given up or that nobody keeps alive, or one of its own whose granting it never heard of."""
        last_holder = ""

        def dead(claim: Claim) -> bool:
            nonlocal last_holder
            last_holder = claim.worker
            if claim.number in self._held:  # whosever it is by now: it is being carried out here
                return False
            if claim.worker in ("", self._worker):
                return True
            return died_here(claim.worker) or self._pulses.is_silent(claim)

        if time.monotonic() < self._next_look:
            return None
        claim = self._store.take_over(self._study, self._worker, dead)
        if claim is None:
            self._next_look = time.monotonic() + PATIENCE.total_seconds()
        else:
            logs.claim_taken_over(claim.number, last_holder, attempt=claim.attempt)
        return claim

    def _promote(self) -> Claim | None:
        """Claim the trial that deserves a larger budget most, if there is one."""
        busy = set(self._held)
        while (found := self._plan.rungs.promotable(busy)) is not None:
            number, budget = found
            claim = self._store.promote(self._study, number, self._worker, budget)
            if claim is not None:
                logs.trial_promoted(number, budget)
                return claim
            busy.add(number)
        return None

    def _claim_next(self) -> Claim | None:
        """Claim the source's next point; another driver may have been faster with the same one.

        None if every number has been given, or the source has no further point.
        """
        while not self._exhausted and (number := self._store.next_number(self._study)) < self._plan.target:
            suggestion = self._source.ask(number)
            if suggestion is None:
                self._exhausted = True
                return None
            claim = self._store.claim(
                self._study,
                suggestion.point,
                self._worker,
                suggestion.sampler,
                below=self._plan.target,
                budget=self._plan.rungs.budgets[0],
            )
            if claim is not None:
                return claim
            self._source.withdraw(suggestion)
            self._catch_up()
            self._learn_claims()
        return None

    def _start(self, claim: Claim) -> None:
        checkpoint = self._known.checkpoint(claim.number)
        rng_seed = trial_seed(self._plan.rng_seed, claim.number)
        job = Job(claim.number, claim.point, rng_seed, claim.budget, claim.attempt, checkpoint)
        outcome = self._plan.judge(claim.point)
        if outcome is None and claim.attempt > self._plan.max_retries + 1:
            outcome = Outcome(State.FAILED, reason=f"its process died in each of {claim.attempt - 1} tries")
        if outcome is None:
            self._submit(job)
        else:
            now = datetime.now(UTC)
            self._record(Finished(job, outcome, now, now, this_process()))

    def _submit(self, job: Job) -> None:
        logs.trial_started(job.number, budget=job.budget, attempt=job.attempt)
        self._executor.submit(job)

    # what came of it -------------------------------------------------------------------------------------

    def _settle(self, finished: Finished) -> None:
        """Record what has finished; what could not be carried out is tried again, so often and no more.

        Raises:
            RankSearchError: it will not work for any trial.
        """
        job, trouble = finished.job, finished.trouble
        if trouble is not None and not isinstance(trouble, ArtifactError | LaunchError):
            raise trouble
        if isinstance(trouble, ArtifactError):
            self._await_artifacts(trouble)
            job = replace(job, checkpoint=None)  # it may be the one that cannot be read
        if trouble is None or job.attempt > self._plan.max_retries:
            self._record(finished)
            self._failures.note(job.number, finished.outcome)
        else:
            again = replace(job, attempt=job.attempt + 1)
            logs.trial_retried(again.number, str(trouble), attempt=again.attempt, worker=finished.worker)
            self._again.append(again)

    def _await_artifacts(self, trouble: ArtifactError) -> None:
        """Wait until files can be written again: no trial is spent on a full disk.

        Raises:
            ArtifactError: they still cannot after the plan's patience.
        """
        deadline = time.monotonic() + self._plan.patience
        while (reason := _in_the_way(self._plan.artifacts)) is not None:
            logs.artifacts_unwritable(self._plan.artifacts.location, str(reason))
            if time.monotonic() >= deadline:
                raise reason from trouble
            time.sleep(PATIENCE.total_seconds())

    def _record(self, finished: Finished) -> None:
        """Record what came of a claim, and tell of it; drop it if the claim has gone, because another was faster."""
        job = finished.job
        outcome = self._verdict(job, finished.outcome)
        if self._write(finished, outcome):
            seconds = (finished.finished - finished.started).total_seconds()
            logs.trial_finished(
                job.number, outcome.state, seconds, reason=outcome.reason, attempt=job.attempt, worker=finished.worker
            )
            self._tell(lambda watcher: watcher.recorded(finished, outcome))
            self._done_here += 1
        else:
            logs.result_dropped(job.number, attempt=job.attempt, worker=finished.worker)
        before = self._known.checkpoint(job.number)
        del self._held[job.number]
        self._catch_up()
        self._drop([before] if before else [])
        self._show()

    def _write(self, finished: Finished, outcome: Outcome) -> bool:
        """Whether the store took the outcome: it has the first one of each claim. Its clock says when that was."""
        job, arrived = finished.job, time.monotonic()
        now = self._store.now()
        ended = now - timedelta(seconds=time.monotonic() - arrived)
        return self._store.record(
            self._study,
            replace(self._held[job.number], attempt=job.attempt),
            outcome,
            budget=job.budget,
            rng_seed=job.rng_seed,
            started=ended - (finished.finished - finished.started),
            finished=ended,
            worker=finished.worker,
        )

    def _verdict(self, job: Job, outcome: Outcome) -> Outcome:
        """Below the full budget a trial has only stopped; at it, one that breaks a constraint is infeasible."""
        if outcome.state is not State.COMPLETE:
            return outcome
        if job.budget < self._study.budget:
            return replace(outcome, state=State.STOPPED)
        broken = check(self._plan.constraints, outcome.measurements, self._study.dense)
        return replace(outcome, state=State.INFEASIBLE, reason="; ".join(broken)) if broken else outcome

    def _catch_up(self) -> None:
        """Learn of every trial that was recorded since the last time, by this driver or another."""
        rows = self._store.trials(self._study, after=self._known.last_id)
        self._elsewhere -= {row.number for row in rows}
        full = self._study.budget
        self._source.feed(
            Past(row.number, row.point, row.sampler, outcome_of(row), min(1.0, row.budget / full) if full else 1.0)
            for row in rows
        )
        for row in rows:
            self._note(row)
        for row in self._known.learn(rows):
            self._drop(self._store.forget_artifacts(self._study, row.number))

    def _note(self, row: TrialRow) -> None:
        """Tell the rungs how a trial did at each budget; one that was refused before training was at none."""
        rungs = self._plan.rungs
        for budget, measured in row.earlier.items():
            rungs.note(row.number, budget, list(self._study.losses(measured).values()))
        if row.state in (State.COMPLETE, State.STOPPED):
            rungs.note(row.number, row.budget, list(row.losses.values()))
        elif row.state is not State.INFEASIBLE or row.budget == rungs.budgets[-1]:
            rungs.note(row.number, row.budget, None)

    def _learn_claims(self) -> None:
        """Learn which trials others have in flight."""
        claims = self._store.claims(self._study)
        self._elsewhere = {each.number for each in claims} - self._held.keys()
        self._source.feed(Past(each.number, each.point, each.sampler) for each in claims)

    def _drop(self, artifacts: Sequence[Artifact]) -> None:
        """Delete files that no trial needs any longer; what cannot be deleted now is swept up at the end."""
        for artifact in artifacts:
            with contextlib.suppress(ArtifactError):
                self._plan.artifacts.discard(artifact.location)

    def _show(self) -> None:
        progress = self.progress()
        self._report(progress)
        self._tell(lambda watcher: watcher.progressed(progress))

    def progress(self) -> Progress:
        """How far the search is."""
        seconds = time.monotonic() - self._begun
        pace = seconds / self._done_here if self._done_here else None
        return Progress(
            study=self._study,
            target=self._plan.target,
            states=self._known.states,
            in_flight=len(self._held),
            elsewhere=len(self._elsewhere),
            workers=self._executor.workers,
            front=self._known.front,
            hypervolume=hypervolume_of(self._study, [self._known.losses(row) for row in self._known.front]),
            seconds=seconds,
            seconds_left=None if pace is None else pace * max(0, self._plan.target - self._known.finished),
            rate=None if pace is None else 60 / pace,
        )

    def _tell(self, news: Callable[[Watcher], None]) -> None:
        """Tell the watchers; one that fails is told nothing more, and the search goes on."""
        for watcher in self._watchers:
            try:
                news(watcher)
            except Exception as error:  # noqa: BLE001  a full disk of logs must not end a search
                _log.warning("%s shows nothing more: %s", type(watcher).__name__, error)
                self._watchers = tuple(each for each in self._watchers if each is not watcher)


def outcome_of(row: TrialRow) -> Outcome:
    """What came of a recorded trial."""
    return Outcome(row.state, row.measurements, row.reason, row.artifacts)


def hypervolume_of(study: StudyRecord, losses: Sequence[Sequence[float]]) -> float:
    """Hypervolume of losses between the study's ideal and its reference point, as a share of that box."""
    reference = [study.reference_point[name] for name in study.objective_names]
    ideal = [study.ideal[name] for name in study.objective_names]
    return hypervolume(losses, reference, ideal) if losses else 0.0


def _in_the_way(artifacts: ArtifactStore) -> ArtifactError | None:
    """Why no file can be written just now."""
    try:
        artifacts.delete(artifacts.write("probe", "probe", ".part", b"room?").location)
    except ArtifactError as error:
        return error
    return None
