"""How a front grew: its share of the box by number of trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rank_search.pareto.dominance import loss_table, nondominated
from rank_search.pareto.reference_box import ReferenceBox

MOMENTS: Final = 160
"""The front is looked at after at most this many numbers of trials: half spread evenly, half by factors."""


@dataclass(frozen=True)
class Convergence:
    """The share of a box that the front dominated after some of the trials.

    Attributes:
        trials: how many had been recorded.
        shares: the hypervolume of the front then, as a share of the box.
        members: how many results are on the front at the end.
    """

    trials: tuple[int, ...]
    shares: tuple[float, ...]
    members: int

    def after(self, trials: int) -> float:
        """The share at the last moment with at most that many trials; 0 before the first."""
        found = [share for count, share in zip(self.trials, self.shares, strict=True) if count <= trials]
        return found[-1] if found else 0.0


def convergence(
    results: Sequence[Sequence[Sequence[float]]], box: ReferenceBox, also: Iterable[int] = ()
) -> Convergence:
    """How the share of the box that the front dominates grew.

    Symbols: F_k the front of the first k of n trials. The result has k and `box.hypervolume(F_k)` for every k, or from
    161 trials on for the first, the last, and others spread evenly and by factors between.

    Args:
        results: of the trials in the order in which they were recorded, the losses, m each, of the results that take
            part in the front: one, several, or none of a trial that counts all the same.
        also: numbers of trials k to look at in any case, as far as there are that many.

    Edge cases: no trials have no moments; a front outside the box has the share 0.
    Complexity: that of a hypervolume for each moment; about a second for 10,000 trials of two objectives.

    >>> convergence([[(0.5, 0.5)], [], [(0.0, 0.5)]], ReferenceBox((0.0, 0.0), (1.0, 1.0))).shares
    (0.25, 0.25, 0.5)
    """
    import numpy as np

    counts = sorted({*_moments(len(results)), *(count for count in also if 1 <= count <= len(results))})
    front, last, share, shares = np.empty((0, len(box.ideal))), 0, 0.0, []
    for count in counts:
        new = [losses for trial in results[last:count] for losses in trial]
        if new:
            front = np.concatenate([front, loss_table(new)])
            front = front[nondominated(front)]
            share = box.hypervolume(front)
        shares.append(share)
        last = count
    return Convergence(tuple(counts), tuple(shares), len(front))


def _moments(count: int) -> list[int]:
    if count <= MOMENTS:
        return list(range(1, count + 1))
    import numpy as np

    places = np.concatenate([np.linspace(1, count, MOMENTS // 2), np.geomspace(1, count, MOMENTS // 2)])
    return [int(place) for place in np.unique(places.round())]
