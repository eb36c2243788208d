"""Non-dominated sorting of loss vectors that come one after the other, and the spread within a front."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]
"""Loss vectors as columns: objectives × vectors. Comparing along rows is many times faster than along columns."""

Rows = NDArray[np.intp]

_NOWHERE: Final = -1
_DIGITS: Final = 9  # of squared distances; what differs beyond them differs by rounding errors
_BLOCK: Final = 256


@final
class Ranks:
    """The level of each of a growing set of loss vectors.

    Level 0 is the front: what no other vector dominates. The level of any other vector is one more than the highest
    among those that dominate it, so that level k is the front of what remains without the levels before it
    (non-dominated sorting: Deb, Pratap, Agarwal, Meyarivan 2002, section III-A). Ranks depend on the set alone, not
    on the order in which it came; equal vectors have equal levels.

    A new vector pushes down, level by level, what it dominates, and that in turn what it dominates (as in Li, Deb,
    Zhang, Zhang 2017, "Efficient nondomination level update").

    Args:
        objectives: length of the vectors.

    >>> levels = Ranks(2)
    >>> levels.add(np.array([[2.0, 1.0, 3.0], [2.0, 3.0, 3.0]]))
    >>> levels.of.tolist()
    [0, 0, 1]
    >>> levels.add(np.array([[1.0], [2.0]]))
    >>> levels.of.tolist()
    [1, 1, 2, 0]
    """

    def __init__(self, objectives: int) -> None:
        self.losses: Losses = np.empty((objectives, 0))
        self.of: Rows = np.empty(0, dtype=np.intp)

    def add(self, losses: Losses) -> None:
        """Add vectors, all finite.

        Complexity: for each of them, linear in the vectors known, and what it pushes down. In lexicographic order
        none pushes another of the same call, so that adding many at once is fastest in that order.
        """
        known = self.of.size
        self.losses = np.concatenate([self.losses, losses], axis=1)
        self.of = np.concatenate([self.of, np.full(losses.shape[1], _NOWHERE)])
        for column in range(known, self.of.size):
            self._place(column)

    def _place(self, column: int) -> None:
        known, new = self.losses[:, :column], self.losses[:, column, None]
        no_worse, no_better = (known <= new).all(axis=0), (known >= new).all(axis=0)
        above = self.of[:column][no_worse & ~no_better]
        level = int(above.max(initial=_NOWHERE)) + 1
        self._push(np.array([column]), level, np.flatnonzero(no_better & ~no_worse))

    def _push(self, moving: Rows, level: int, below: Rows) -> None:
        """Put vectors of one front on a level; `below` is everything that may have to give way."""
        while moving.size:
            self.of[moving] = level
            there = below[self.of[below] == level]
            moving = there[self._dominated(there, moving)]
            level += 1

    def _dominated(self, columns: Rows, others: Rows) -> NDArray[np.bool_]:
        """Which of these vectors any of the others dominates."""
        mine, theirs = self.losses[:, None, columns], self.losses[:, others, None]
        dominated: NDArray[np.bool_] = np.all(theirs <= mine, axis=0) & np.any(theirs < mine, axis=0)
        return np.asarray(dominated.any(axis=0))


def farthest(losses: Losses, chosen: NDArray[np.bool_]) -> int:
    """The vector that is farthest from those already chosen: the next point of a greedy ε-net.

    As Salinas, Perrone, Cruchant, Archambeau 2021, spread the members of a front: each next one is

        argmax over the rest of min over chosen c of ‖(x − c) / span‖

    Here every objective is divided by its span within these vectors, so that units do not matter. Where none is chosen
    yet, it is the vector with the least first loss (then the second, and so on). Of equals, up to rounding, the first.

    Args:
        losses: objectives × vectors, all finite; an objective that is the same everywhere counts for nothing.
        chosen: which vectors have been chosen; not all of them.

    Complexity: chosen × vectors.

    >>> front = np.array([[0.0, 1.0, 4.0, 10.0], [400.0, 300.0, 100.0, 0.0]])
    >>> farthest(front, np.array([False, False, False, False]))
    0
    >>> farthest(front, np.array([True, False, False, True]))
    2
    """
    if not chosen.any():
        return int(np.lexsort(losses[::-1])[0])
    span = np.ptp(losses, axis=1, keepdims=True)
    scaled = (losses - losses.min(axis=1, keepdims=True)) / np.where(span > 0, span, 1.0)
    rest, net = np.flatnonzero(~chosen), scaled[:, chosen]
    distances = _from_nearest(scaled[:, rest], net)
    return int(rest[np.round(distances, _DIGITS).argmax()])


def _from_nearest(points: Losses, net: Losses) -> NDArray[np.float64]:
    """Squared distance of each point from the nearest of a net, as ‖x‖² + min over c of ‖c‖² − 2 x·c."""
    found = np.full(points.shape[1], np.inf)
    for start in range(0, net.shape[1], _BLOCK):
        block = net[:, start : start + _BLOCK]
        products = np.square(block).sum(axis=0)[:, None] - 2 * block.T @ points
        np.minimum(found, products.min(axis=0), out=found)
    return np.asarray(found + np.square(points).sum(axis=0))
