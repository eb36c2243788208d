"""Waiting for a database that is away or busy, and saying so once."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar, final

from rank_search.errors import StoreAwayError, StoreError

Answer = TypeVar("Answer")

_log: Final = logging.getLogger("rank_search.store.database")

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_CONFLICT_SECONDS: Final = 10.0
_CHANCE: Final = random.SystemRandom()
"""Without a state: the global generator is that of a trial that this process may be carrying out meanwhile."""


class ConflictError(StoreError):
    """Two transactions got into each other's way: one of them has to be repeated."""


class NotNowError(StoreAwayError):
    """The database answers that it cannot do this just now."""


@final
class Patience:
    """Repeats what finds the database away, for up to the given seconds.

    `reached`: the database has been read or written. `answered`: it has at least said that it cannot, just now. Until
    then an address where nobody answers is rather a wrong one.
    """

    def __init__(self, location: str, seconds: float) -> None:
        self._location, self._seconds = location, seconds
        self._lock, self._over = threading.Lock(), threading.Event()
        self._since: float | None = None
        self.reached = self.answered = False

    def end(self) -> None:
        """Wait no longer, from now on: whoever does is told that the database is away."""
        self._over.set()

    def until_done(self, act: Callable[[], Answer]) -> Answer:
        """What the function returns when the database is there.

        Raises:
            StoreAwayError: it is still away, and patience is over.
        """
        tries = _Tries()
        while True:
            try:
                answer = act()
            except (StoreAwayError, ConflictError) as error:
                self.answered = self.answered or isinstance(error, NotNowError)
                if (pause := tries.pause(self._seconds_for(error))) is None:
                    raise
                self._note(error)
                if self._over.wait(pause):
                    raise
            else:
                self.reached = self.answered = True
                self._note_return()
                return answer

    def _seconds_for(self, error: StoreError) -> float:
        if isinstance(error, ConflictError):
            return max(self._seconds, _CONFLICT_SECONDS)
        return self._seconds if self.answered else 0.0

    def _note(self, error: StoreError) -> None:
        """Say once that it went away, whoever of the threads notices."""
        with self._lock:
            if self._since is None and isinstance(error, StoreAwayError):
                self._since = time.monotonic()
                _log.warning("%s Trying again for up to %g s.", error, self._seconds)

    def _note_return(self) -> None:
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
            if since is not None:
                _log.warning("The store %s is back after %.1f s.", self._location, time.monotonic() - since)


@final
class _Tries:
    """Longer and longer pauses, counted from when the first is asked for."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._longest = _FIRST_PAUSE

    def pause(self, patience: float) -> float | None:
        """Seconds until the next try; `None` if patience is over."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        left = self._began + patience - now
        if left <= 0:
            return None
        longest, self._longest = self._longest, min(2 * self._longest, _LONGEST_PAUSE)
        return min(_CHANCE.uniform(0.5, 1.0) * longest, left)  # so that drivers do not come back as one
