"""What a sampler is told of an outcome: losses without gaps, and how far each constraint is broken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from rank_search.point import Outcome, State
from rank_search.search.constraints import COUNTED, violations
from rank_search.search.settings import SearchSettings

BUDGET: Final = "budget"
"""The constraint that a trial which did not reach the full budget breaks."""


@dataclass(frozen=True)
class Told:
    """Losses, None where there is nothing to learn from the trial, and violations by constraint."""

    losses: tuple[float, ...] | None
    violations: Mapping[str, float]


@final
class Results:
    """Turns outcomes into what a sampler is told.

    It depends on the newest outcome of each trial alone, not on the order in which they came; so a trial that lacks a
    loss has to be told again when a worse one is seen. Trials that are only stopped do not set what is worst, because
    they may have a better one later; and of the bounds only those on counted costs are judged for them.

    Args:
        settings: objectives, constraints, and whether there are rungs.
        dense: measurements of the dense model, for constraints relative to it.
    """

    def __init__(self, settings: SearchSettings, dense: Mapping[str, float]) -> None:
        self._objectives, self._constraints = settings.objectives, settings.constraints
        self._rungs, self._dense = settings.rungs is not None, dense
        self._worst = (-math.inf,) * len(settings.objectives)
        self._lacking: dict[str, tuple[State, Told]] = {}

    def learn(self, key: str, outcome: Outcome, share: float) -> dict[str, Told]:
        """What to tell of a trial, by its point's key; others that have to be told again are with it.

        `share` is the trial's budget as a share of the full one.
        """
        self._lacking.pop(key, None)
        if outcome.state is State.FAILED:
            return {key: Told(None, {})}
        raw = self._raw(outcome, share)
        again = dict(self._lacking) if self._remember_worst(outcome.state, raw) else {}
        if not _whole(raw):
            self._lacking[key] = (outcome.state, raw)
        return {each: self._filled(*lacking) for each, lacking in {**again, key: (outcome.state, raw)}.items()}

    def _raw(self, outcome: Outcome, share: float) -> Told:
        """Losses with NaN where nothing was measured."""
        measured = {} if outcome.state is State.DIVERGED else outcome.measurements
        losses = tuple(each.loss(measured.get(each.name, math.nan)) for each in self._objectives)
        judged = outcome.measurements
        if outcome.state is State.STOPPED:  # an error may yet fall below its bound
            judged = {name: value for name, value in judged.items() if name in COUNTED}
        broken = violations(self._constraints, judged, self._dense)
        if self._rungs:
            broken[BUDGET] = 1.0 - (share if all(map(math.isfinite, losses)) else 0.0)
        return Told(losses, broken)

    def _remember_worst(self, state: State, raw: Told) -> bool:
        """Whether there is a worse loss than before."""
        if state is State.STOPPED:
            return False
        before, pairs = self._worst, zip(self._worst, raw.losses or (), strict=True)
        self._worst = tuple(max(worst, loss) if math.isfinite(loss) else worst for worst, loss in pairs)
        return self._worst != before

    def _filled(self, state: State, raw: Told) -> Told:
        pairs = zip(self._worst, raw.losses or (), strict=True)
        losses = tuple(loss if math.isfinite(loss) else worst for worst, loss in pairs)
        if state is State.INFEASIBLE:
            losses = tuple(loss if math.isfinite(loss) else 0.0 for loss in losses)  # known by its violations alone
        return Told(losses if all(map(math.isfinite, losses)) else None, raw.violations)


def _whole(raw: Told) -> bool:
    return raw.losses is not None and all(map(math.isfinite, raw.losses))
