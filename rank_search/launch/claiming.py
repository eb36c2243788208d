"""The claims of a driver: those it holds, and where the next one comes from."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final, final

from rank_search.launch.driver_name import died_here, driver_name
from rank_search.launch.heartbeats import Pulses
from rank_search.launch.search_plan import SearchPlan
from rank_search.launch.study_feed import StudyFeed
from rank_search.observe import logs
from rank_search.search import Source
from rank_search.store import Claim, Store, StudyRecord

BETWEEN_LOOKS: Final = timedelta(seconds=1)
"""At claims that nobody keeps alive: all are read for that."""


@final
class Claims:
    """What a driver has claimed and not recorded yet, by number in `held`, and what it may claim next.

    Attributes:
        pulses: who keeps claims alive.
        exhausted: whether the source has no further point.
    """

    def __init__(self, store: Store, study: StudyRecord, source: Source, plan: SearchPlan, feed: StudyFeed) -> None:
        self._store, self._study, self._source = store, study, source
        self._plan, self._feed = plan, feed
        self._worker = driver_name()
        self.held: dict[int, Claim] = {}
        self.pulses, self.exhausted = Pulses(), False
        self._next_look = 0.0

    def next(self) -> Claim | None:
        """A trial of a driver that died, else one that goes on to a larger budget, else a new one; it is held now.

        Where the first rung is before any training, seed points come before trials that go on: measuring them costs
        little, and which of them deserve it most shows when all have been measured.
        """
        claim = self._take_over() if self._is_short or self._has_rungs else None
        if claim is None and self._is_short and self._plan.rungs.budgets[0] == 0 and self._source.has_seeds:
            claim = self._claim_next()
        if claim is None and self._has_rungs:
            claim = self._promote()
        if claim is None and self._is_short:
            claim = self._claim_next()
        if claim is not None:
            self.held[claim.number] = claim
        return claim

    @property
    def _has_rungs(self) -> bool:
        return len(self._plan.rungs.budgets) > 1

    @property
    def _is_short(self) -> bool:
        """Whether the trials that have finished and those in flight here do not make up the target."""
        return len(self._feed.known.numbers | self.held.keys()) < self._plan.target

    def _take_over(self) -> Claim | None:
        """A claim that was given up or that nobody keeps alive, or one that was granted to this driver unheard."""
        if time.monotonic() < self._next_look:
            return None
        taken = self._store.take_over(self._study, self._worker, self._is_orphaned)
        if taken is None:
            self._next_look = time.monotonic() + BETWEEN_LOOKS.total_seconds()
            return None
        claim, former = taken
        logs.claim_taken_over(claim.number, former, attempt=claim.attempt)
        return claim

    def _is_orphaned(self, claim: Claim) -> bool:
        if claim.number in self.held:  # whosever it is by now: it is being carried out here
            return False
        if claim.worker in ("", self._worker):
            return True
        return died_here(claim.worker) or self.pulses.is_silent(claim)

    def _promote(self) -> Claim | None:
        """Claim the trial that deserves a larger budget most, if there is one."""
        busy = set(self.held)
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
        while not self.exhausted and self._store.begun(self._study) < self._plan.target:
            asked = self._source.ask(self._store.next_number(self._study))
            if asked is None:
                self.exhausted = True
                return None
            first, target = self._plan.rungs.budgets[0], self._plan.target
            claim = self._store.claim(self._study, asked.point, self._worker, asked.sampler, target, first)
            if claim is not None:
                return claim
            self._source.withdraw(asked)
            self._feed.catch_up()
            self._feed.learn_claims(self.held)
        return None
