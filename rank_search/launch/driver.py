"""The driver: asks for points, claims them, has them tried, records what came of them, and tells the source.

Recording comes before telling: if anything happens in between, the store has it. A driver that is killed leaves claims
behind; the next one takes them over under the same numbers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from rank_search.errors import ArtifactError, CheckpointError, LaunchError
from rank_search.launch.artifact_room import await_room
from rank_search.launch.claiming import Claims
from rank_search.launch.executors import Executor, Finished, Job, this_process, trial_seed
from rank_search.launch.failures import Failures
from rank_search.launch.heartbeats import beating
from rank_search.launch.recovering import Recovering, way_point
from rank_search.launch.search_plan import SearchPlan
from rank_search.launch.study_feed import StudyFeed
from rank_search.observe import Observers, SearchProgress, logs
from rank_search.point import Execution, Outcome, State
from rank_search.search import Source, check
from rank_search.store import Claim, Store, StudyRecord, hypervolume_of

PATIENCE: Final = timedelta(seconds=1)


class SearchDriver:
    """One driver of one study; several may work on the same store."""

    def __init__(
        self,
        store: Store,
        study: StudyRecord,
        source: Source,
        executor: Executor,
        plan: SearchPlan,
        observers: Observers | None = None,
    ) -> None:
        self._store, self._study = store, study
        self._executor, self._plan, self._observers = executor, plan, observers or Observers()
        self._feed = StudyFeed(store, study, source, plan)
        self._claims = Claims(store, study, source, plan, self._feed)
        self._again: list[Job] = []
        self._failures, self._recovering = Failures(plan.max_failures), Recovering(plan)
        self._begun, self._done_here = time.monotonic(), 0

    @property
    def done_here(self) -> int:
        """How many trials this driver has recorded."""
        return self._done_here

    @property
    def undeleted(self) -> Set[str]:
        """Names of files that no trial needs, and that could not be deleted."""
        return self._feed.undeleted

    def run(self) -> bool:
        """Go on until the target is reached; False if the space was exhausted before.

        Several drivers reach the target together and exactly: each waits for the trials that the others have in
        flight, and takes over those of one that dies. Interrupted (Ctrl-C, an error, anything), it closes the executor
        and gives its claims up, so that the next driver takes them at once.
        """
        self._store.set_target(self._study, self._plan.target)
        self._look_around()
        logs.study_joined(self._store.location, self._plan.target, self._feed.known.finished)
        complete = False
        try:
            with beating(self._store, self._study, lambda: list(self._claims.held.values()), self._claims.pulses):
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
            self._observers.close()
            with contextlib.suppress(Exception):  # the reason for stopping matters more
                self._store.release(self._study, self._claims.held.values())

    def progress(self) -> SearchProgress:
        """How far the search is."""
        seconds, known = time.monotonic() - self._begun, self._feed.known
        pace = seconds / self._done_here if self._done_here else None
        return SearchProgress(
            study=self._study,
            target=self._plan.target,
            states=known.states,
            in_flight=len(self._claims.held),
            elsewhere=len(self._feed.elsewhere),
            workers=self._executor.workers,
            front=known.front,
            hypervolume=hypervolume_of(self._study, known.front),
            seconds=seconds,
            seconds_left=None if pace is None else pace * max(0, self._plan.target - known.finished),
            rate=None if pace is None else 60 / pace,
        )

    def _until_done(self) -> bool:
        while True:
            self._fill()
            if self._claims.held or not self._executor.free:  # nothing held and nothing free: workers are starting
                for finished in self._executor.collect(seconds=5):
                    self._settle(finished)
            elif self._feed.known.finished >= self._plan.target:
                return True
            elif self._claims.exhausted:
                return False
            else:
                time.sleep(PATIENCE.total_seconds())
                self._look_around()

    def _look_around(self) -> None:
        """Learn what the others have done and are doing."""
        self._feed.catch_up()
        self._feed.learn_claims(self._claims.held)
        self._observers.progressed(self.progress())

    # what there is to do ---------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give every free slot a job, as far as there is one to be had."""
        while self._executor.free > 0:
            if self._again:
                self._submit(self._again.pop())
            elif (claim := self._claims.next()) is not None:
                self._start(claim)
            else:
                return

    def _start(self, claim: Claim) -> None:
        checkpoint = self._feed.known.checkpoint(claim.number)
        rng_seed = trial_seed(self._plan.rng_seed, claim.number)
        job = Job(claim.number, claim.point, rng_seed, claim.budget, claim.attempt, checkpoint)
        outcome = self._plan.judge(claim.point)
        if outcome is None:
            job = self._recovering.keeping(job)
            job = self._recovering.gone_on(job) if claim.is_taken_over else job
        if outcome is None and job.attempt - job.spared > self._plan.max_retries + 1:
            outcome = Outcome(State.FAILED, reason=f"its process died in each of {claim.attempt - 1} tries")
        if outcome is None:
            self._submit(job)
        else:
            now = datetime.now(UTC)
            self._record(Finished(job, outcome, now, now, this_process()))

    def _submit(self, job: Job) -> None:
        logs.trial_started(job.number, budget=job.budget, attempt=job.attempt)
        if (left := way_point(job)) is not None:
            logs.trial_goes_on(job.number, left.epochs, attempt=job.attempt)
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
            await_room(self._plan.artifacts, trouble, self._plan.patience, PATIENCE.total_seconds())
            job = replace(job, checkpoint=None)  # it may be the one that cannot be read
        if isinstance(trouble, CheckpointError):
            self._recovering.forget(job)
        elif trouble is not None:
            job = self._recovering.gone_on(job)
        if trouble is None or job.attempt - job.spared > self._plan.max_retries:
            self._record(finished)
            self._failures.note(job.number, finished.outcome)
        else:
            again = replace(job, attempt=job.attempt + 1)
            logs.trial_retried(again.number, str(trouble), attempt=again.attempt, worker=finished.worker)
            self._again.append(again)

    def _record(self, finished: Finished) -> None:
        """Record what came of a claim, and tell of it; drop it if the claim has gone, because another was faster."""
        job = finished.job
        outcome = self._verdict(job, finished.outcome)
        mine = self._write(finished, outcome)
        if mine:
            seconds = (finished.finished - finished.started).total_seconds()
            logs.trial_finished(
                job.number, outcome.state, seconds, reason=outcome.reason, attempt=job.attempt, worker=finished.worker
            )
            self._done_here += 1
        else:
            logs.result_dropped(job.number, attempt=job.attempt, worker=finished.worker)
        before = self._feed.known.checkpoint(job.number)
        del self._claims.held[job.number]
        rows = self._feed.catch_up()
        for row in rows:
            if mine and job.number in (row.number, row.cut_of):
                self._observers.recorded(row)
        self._feed.drop([before] if before else [])
        if self._recovering.may_have_left(finished):
            with contextlib.suppress(ArtifactError):  # a later run sweeps them up
                self._recovering.forget(job)
        self._feed.drop_cuts(outcome, rows)
        self._observers.progressed(self.progress())

    def _write(self, finished: Finished, outcome: Outcome) -> bool:
        """Whether the store took the outcome: it has the first one of each claim. Its clock says when that was."""
        job, arrived = finished.job, time.monotonic()
        now = self._store.now()
        ended = now - timedelta(seconds=time.monotonic() - arrived)
        ran = Execution(job.rng_seed, ended - (finished.finished - finished.started), ended, finished.worker)
        claim = replace(self._claims.held[job.number], attempt=job.attempt)
        return self._store.record(self._study, claim, outcome, ran)

    def _verdict(self, job: Job, outcome: Outcome) -> Outcome:
        """Below the full budget a trial has only stopped; at it, one that breaks a constraint is infeasible."""
        if outcome.state is not State.COMPLETE:
            return outcome
        if job.budget < self._study.budget:
            return replace(outcome, state=State.STOPPED, row=())
        row = tuple(replace(each, outcome=self._feasible(each.outcome)) for each in outcome.row)
        return replace(self._feasible(outcome), row=row)

    def _feasible(self, outcome: Outcome) -> Outcome:
        broken = check(self._plan.constraints, outcome.measurements, self._study.dense)
        return replace(outcome, state=State.INFEASIBLE, reason="; ".join(broken)) if broken else outcome
