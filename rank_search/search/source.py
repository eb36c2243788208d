"""Where a driver gets its points from: a search, or points that were chosen before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

from rank_search.point import Outcome, Point


@dataclass(frozen=True)
class SearchTrial:
    """A trial as a source of points knows it: to be tried, in flight, or ended.

    Attributes:
        sampler: what a store keeps so that a search can go on later, and be looked at: label, coordinates, and what
            the sampler noted. It is plain JSON.
        outcome: the newest; None while the trial is in flight.
        share: the budget that the outcome came of, as a share of the full one.
        is_cut: whether it is a trained model that was cut: nobody has asked for its point.
    """

    number: int
    point: Point
    sampler: Mapping[str, Any]
    outcome: Outcome | None = None
    share: float = 1.0
    is_cut: bool = False

    @property
    def label(self) -> str:
        """Which seed point it is, or the sampler that made it."""
        return str(self.sampler["label"])


class Source(Protocol):
    """What a driver asks for points: a `Searcher`, or `FixedPoints`."""

    @property
    def has_seeds(self) -> bool:
        """Whether there are seed points to be asked yet."""
        ...

    def ask(self, number: int) -> SearchTrial | None:
        """A point that is not known yet, for the trial of that number; None when there is no further one."""
        ...

    def withdraw(self, trial: SearchTrial) -> None:
        """Forget a trial that came to nothing: another driver has taken the point or the number."""
        ...

    def feed(self, trials: Iterable[SearchTrial]) -> None:
        """Learn of trials that have ended, and of those in flight."""
        ...


@final
class FixedPoints:
    """Hands out the points of given trials in their order, each once in the life of the study, and nothing else.

    Each gets the number that is asked for; what the store is to keep beside the point stays as given.
    """

    def __init__(self, trials: Sequence[SearchTrial]) -> None:
        self._trials = tuple(trials)
        self._known: set[str] = set()

    @property
    def has_seeds(self) -> bool:
        return False

    def ask(self, number: int) -> SearchTrial | None:
        for given in self._trials:
            if given.point.key not in self._known:
                self._known.add(given.point.key)
                return replace(given, number=number)
        return None

    def withdraw(self, trial: SearchTrial) -> None:
        self._known.discard(trial.point.key)

    def feed(self, trials: Iterable[SearchTrial]) -> None:
        self._known.update(trial.point.key for trial in trials)
