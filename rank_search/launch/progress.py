"""How far a search has come: what a progress display is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rank_search.fronts import StudyRecord, TrialRow
from rank_search.point import State

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The search after a trial was recorded.

    Attributes:
        target: finished trials to reach.
        states: finished trials by state.
        in_flight: trials that are running now, in this driver.
        elsewhere: trials that other drivers had in flight when this one last looked, and have not finished since.
        workers: how many workers of this driver are alive and ready.
        front: the members of the current front.
        hypervolume: of the front, as a share of the box between the ideal and the reference point.
        seconds, seconds_left: since this driver began, and until the target at the pace so far (None: unknown).
        rate: trials a minute that this driver has recorded (None: unknown).
        untested: after the search, members of the front that have yet to be measured on the test data.
    """

    study: StudyRecord
    target: int
    states: Mapping[State, int]
    in_flight: int
    elsewhere: int
    workers: int
    front: tuple[TrialRow, ...]
    hypervolume: float
    seconds: float
    seconds_left: float | None
    rate: float | None
    untested: int = 0

    @property
    def finished(self) -> int:
        return sum(self.states.values())


Report = Callable[[Progress], None]
"""Told after every trial how far the search is."""


def going_on(report: Report) -> Report:
    """The same report; when what it writes to is gone, it is told nothing more, and the search goes on."""
    gone: OSError | None = None

    def told(progress: Progress) -> None:
        nonlocal gone
        if gone is None:
            try:
                report(progress)
            except OSError as error:
                gone = error
                _log.warning("Progress is shown no more: %s", error)

    return told
