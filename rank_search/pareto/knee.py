"""Choosing one member of a front by its losses: its knee, or the one closest to a wish."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Losses = Sequence[float]
"""Of one member, in the order of the objectives."""


def knee(losses: Sequence[Losses]) -> int:
    """The place of the member from which a gain in one objective costs most in the others.

    Symbols: l the losses of n ≥ 1 members in m objectives; x = (l − min)/(max − min) over the members. The knee has the
    smallest Σx: of all members it lies farthest below the plane through the m points that are worst in one objective
    and best in the others; with two objectives that is the chord of the front (Das 1999, "On characterizing the 'knee'
    of the Pareto curve"). An objective in which all are equal does not count. Ties: the first. O(n·m).

    >>> knee([[0.0, 1.0], [0.1, 0.2], [1.0, 0.0]])
    1
    """
    lows, spans = _spans(losses)
    return _first_smallest([sum(_scaled(row, lows, spans)) for row in losses])


def closest(losses: Sequence[Mapping[str, float]], wish: Mapping[str, float]) -> int:
    """The place of the member with the smallest Euclidean distance to the wish, each loss in units of the front's span.

    Only the wish's names count. Being better than wished is a distance, too: the member *like* the wish is looked for.
    A name in which all members are equal is taken in its own unit. Ties: the first. O(n·m).

    >>> closest([{"error": 0.1, "macs": 9.0}, {"error": 0.2, "macs": 5.0}], {"macs": 6.0})
    1
    """
    rows = [[row[name] for name in wish] for row in losses]
    _, spans = _spans(rows)
    at = list(wish.values())
    return _first_smallest([math.hypot(*_scaled(row, at, spans)) for row in rows])


def _spans(rows: Sequence[Losses]) -> tuple[list[float], list[float]]:
    """The least of each column, and how far it spans (1 where all are equal)."""
    columns = list(zip(*rows, strict=True))
    lows = [min(column) for column in columns]
    return lows, [max(column) - low or 1.0 for column, low in zip(columns, lows, strict=True)]


def _scaled(row: Losses, zero: Losses, spans: Losses) -> list[float]:
    return [(value - low) / span for value, low, span in zip(row, zero, spans, strict=True)]


def _first_smallest(values: Sequence[float]) -> int:
    return min(range(len(values)), key=lambda place: (values[place], place))
