"""A search in which trial after trial fails is stopped: the next would fail, too."""

from __future__ import annotations

from typing import final

from rank_search.errors import TrialsFailedError
from rank_search.point import Outcome, State


@final
class Failures:
    """Counts the trials in a row that failed.

    Args:
        most: how many may; 0: any number.
    """

    def __init__(self, most: int) -> None:
        self._most, self._in_a_row = most, 0

    def note(self, number: int, outcome: Outcome) -> None:
        """Take in how a trial that was carried out has ended.

        Raises:
            TrialsFailedError: it is the last of too many.
        """
        self._in_a_row = self._in_a_row + 1 if outcome.state is State.FAILED else 0
        if 0 < self._most <= self._in_a_row:
            raise TrialsFailedError(
                f"{self._in_a_row} trials in a row have failed, so the search stops; the last, trial {number}: "
                f"{outcome.reason.rstrip('. ')}. Fix that and run the same command again: the search goes on. "
                "[launch] max_failures says how many trials in a row may fail; 0 allows any number."
            )
