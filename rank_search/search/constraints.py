"""Constraints: which are broken, by how much, and what can be said before training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from rank_search.point import Bound, Outcome, State

COUNTED: Final = frozenset({"params", "macs"})
"""Measurements that are known before training, because they are counted."""

_STRICT: Final = 1e-9


def check(
    bounds: Iterable[Bound], measurements: Mapping[str, float], dense: Mapping[str, float]
) -> tuple[str, ...]:
    """A sentence for each bound that is broken; a bound on something that was not measured is broken."""
    return tuple(
        f"{bound} does not hold: {bound.name} is {measurements.get(bound.name, math.nan):g}"
        for bound in bounds
        if not bound.holds(measurements, dense)
    )


def check_counted(
    bounds: Iterable[Bound], counted: Mapping[str, float], dense: Mapping[str, float]
) -> Outcome | None:
    """The outcome of a point whose counted costs break a bound; None where it is worth training.

    >>> bounds = [Bound.parse("macs <= 0.5 * dense")]
    >>> check_counted(bounds, {"params": 5, "macs": 90}, {"params": 10, "macs": 100}).reason
    'macs <= 0.5 * dense does not hold: macs is 90'
    """
    broken = check((bound for bound in bounds if bound.name in COUNTED), counted, dense)
    return Outcome(State.INFEASIBLE, dict(counted), "; ".join(broken)) if broken else None


def violations(
    bounds: Iterable[Bound], measurements: Mapping[str, float], dense: Mapping[str, float]
) -> dict[str, float]:
    """How far each bound is broken, relative to its limit; not above 0 where it holds.

    Edge cases: what was not measured counts as 0 (nothing is known), NaN and infinity as 1; relative to 1 where
    the limit is 0; equality with a strict bound counts as just broken.
    """
    return {str(bound): _violation(bound, measurements, dense) for bound in bounds}


def _violation(bound: Bound, measurements: Mapping[str, float], dense: Mapping[str, float]) -> float:
    if bound.name not in measurements:
        return 0.0
    value, limit = measurements[bound.name], bound.absolute(dense)
    holds = bound.holds(measurements, dense)
    if not math.isfinite(value):
        return -1.0 if holds else 1.0
    excess = (value - limit) / (abs(limit) or 1.0) * (1 if bound.sign.startswith("<") else -1)
    return min(excess, 0.0) if holds else max(excess, _STRICT)
