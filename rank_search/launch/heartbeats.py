"""Heartbeats: keeping one's own claims alive, and telling who else has fallen silent.

Silence is time that passed here, by a clock that nobody sets, while a claim's heartbeat stood still although it could
be written. The moment that a heartbeat says is compared with no clock: hosts differ, clocks are set, machines sleep.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rank_search.observe import logs
from rank_search.store import Claim, Store, StudyRecord

HEARTBEAT: Final = timedelta(seconds=15)
EXPIRED: Final = timedelta(seconds=90)


@dataclass(frozen=True)
class _Seen:
    """A claim as it was when somebody last looked, and for how long it has been so, in seconds."""

    worker: str
    attempt: int
    heartbeat: datetime
    silent: float = 0.0

    def is_of(self, claim: Claim) -> bool:
        return (self.worker, self.attempt, self.heartbeat) == (claim.worker, claim.attempt, claim.heartbeat)


class Pulses:
    """Who keeps claims alive, as far as can be seen from here.

    Between two looks no more than twice the time between heartbeats counts as silence: what kept this driver from
    looking (an outage of the store, a machine that slept) may have kept the others from beating.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._seen: dict[int, _Seen] = {}

    def look(self, claims: Iterable[Claim]) -> None:
        """Take note of the claims as they are now."""
        now = self._clock()
        passed = min(now - self._looked, 2 * HEARTBEAT.total_seconds())
        self._looked = now
        self._seen = {claim.number: self._now(claim, passed) for claim in claims}

    def is_silent(self, claim: Claim) -> bool:
        """Whether nobody has kept the claim alive for too long."""
        seen = self._seen.get(claim.number)
        return seen is not None and seen.is_of(claim) and seen.silent > EXPIRED.total_seconds()

    def _now(self, claim: Claim, passed: float) -> _Seen:
        before = self._seen.get(claim.number)
        same = before is not None and before.is_of(claim)
        silent = before.silent + passed if before is not None and same else 0.0
        return _Seen(claim.worker, claim.attempt, claim.heartbeat, silent)


@contextlib.contextmanager
def beating(store: Store, study: StudyRecord, held: Callable[[], list[Claim]], pulses: Pulses) -> Iterator[None]:
    """Keep the claims alive, and look at those of others, from a thread: a trial may take longer than a claim lasts."""
    stop = threading.Event()

    def beat() -> None:
        with contextlib.suppress(Exception):  # the store may be away for a while; recording will tell
            store.heartbeat(study, held())
            pulses.look(store.claims(study))

    def go_on() -> None:
        while not stop.wait(HEARTBEAT.total_seconds()):
            beat()

    beat()
    thread = threading.Thread(target=logs.carried(go_on), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
