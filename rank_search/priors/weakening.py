"""Weakening: one number from 0 (full) over 1 (the prior) to 2 (the smallest) that reaches every axis value."""

from __future__ import annotations

import math


def value_at(weakening: float, high: float, prior: float, low: float = 1.0) -> float:
    """The axis value at a weakening w: `high` at 0, `prior` at 1, `low` at 2, geometric in between.

    Formula: high^(1−w)·prior^w for w ≤ 1, prior^(2−w)·low^(w−1) above; where `low` is not positive there is no
    geometric way to it, and both stretches are straight lines.

    Edge cases: weakenings outside [0, 2] count as the nearer end; a prior outside [low, high] (a VBMF rank of 0)
    counts as the nearer end; NaN gives NaN. Falls with w, strictly wherever its two ends differ. Not rounded.

    >>> [round(value_at(w, high=64, prior=16), 6) for w in (0, 0.5, 1, 1.5, 2)]
    [64.0, 32.0, 16.0, 4.0, 1.0]
    """
    prior = _clamp(prior, low, high)
    if weakening <= 1:
        return _between(high, prior, _clamp(weakening, 0.0, 1.0), geometric=low > 0)
    return _between(prior, low, _clamp(weakening - 1, 0.0, 1.0), geometric=low > 0)


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high)) if value == value else math.nan


def _between(start: float, end: float, fraction: float, geometric: bool) -> float:
    """The value that far on the way from start to end; the ends themselves are met exactly."""
    if fraction in (0.0, 1.0):
        return float(end if fraction else start)
    if geometric:
        return math.exp(math.log(start) + fraction * (math.log(end) - math.log(start)))
    return start + fraction * (end - start)
