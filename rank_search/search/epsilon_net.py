"""The spread within a front: which member is farthest from those already chosen."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]
"""Loss vectors as columns: objectives × vectors. Comparing along rows is many times faster than along columns."""

_DIGITS: Final = 9  # of squared distances; what differs beyond them differs by rounding errors
_BLOCK: Final = 256


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
