"""Where a driver gets its points from: a search, or points that were chosen before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from rank_search.point import Point
from rank_search.search.searcher import Past, Suggestion


class Source(Protocol):
    """What a driver asks for points: `Searcher`, or `FixedPoints`."""

    def ask(self, number: int) -> Suggestion | None:
        """A point that is not known yet, for the trial of that number; None when there is no further one."""
        ...

    def withdraw(self, suggestion: Suggestion) -> None:
        """Forget a suggestion that came to nothing: another driver has taken the point or the number."""
        ...

    def feed(self, trials: Iterable[Past]) -> None:
        """Learn of trials that have ended, and of those in flight."""
        ...


@dataclass(frozen=True)
class GivenPoint:
    """A point to try, and what the store is to keep about it beside the point (plain JSON, with a `label`)."""

    point: Point
    sampler: Mapping[str, Any]


@final
class FixedPoints:
    """Hands out given points in their order, each once in the life of the study, and nothing else."""

    def __init__(self, points: Sequence[GivenPoint]) -> None:
        self._points = tuple(points)
        self._known: set[str] = set()

    def ask(self, number: int) -> Suggestion | None:
        for given in self._points:
            if given.point.key not in self._known:
                self._known.add(given.point.key)
                return Suggestion(number, given.point, given.sampler)
        return None

    def withdraw(self, suggestion: Suggestion) -> None:
        self._known.discard(suggestion.point.key)

    def feed(self, trials: Iterable[Past]) -> None:
        self._known.update(past.point.key for past in trials)
