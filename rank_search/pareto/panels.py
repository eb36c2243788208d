"""Measurements against each other, two at a time, each pair with its own front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rank_search.pareto.dominance import nondominated
from rank_search.point import Objective


@dataclass(frozen=True)
class Panel:
    """Two measurements against each other.

    Attributes:
        across, upwards: their names; `upwards` is the earlier objective.
        front: the places, within the trials, of those that no other dominates in these two, from left to right.
    """

    across: str
    upwards: str
    front: tuple[int, ...]


def panels(objectives: Sequence[Objective], trials: Sequence[Mapping[str, float]]) -> list[Panel]:
    """A panel for each pair of objectives, the first objective first.

    Args:
        trials: what each trial measured; nothing, if it takes no part in the front.

    Edge cases: a trial that lacks one of the two is not on their front; of equal ones all are, in their order.
    Complexity: O(p · n log n) for p pairs and n trials.

    >>> macs, error = Objective("macs"), Objective("error")
    >>> panels([error, macs], [{"error": 0.2, "macs": 5.0}, {"error": 0.1, "macs": 9.0}, {"error": 0.3, "macs": 9.0}])
    [Panel(across='macs', upwards='error', front=(0, 1))]
    """
    return [_panel(across, upwards, trials) for upwards, across in combinations(objectives, 2)]


def _panel(across: Objective, upwards: Objective, trials: Sequence[Mapping[str, float]]) -> Panel:
    places = [place for place, row in enumerate(trials) if {across.name, upwards.name} <= row.keys()]
    losses = [[each.loss(trials[place][each.name]) for each in (upwards, across)] for place in places]
    front = [place for place, kept in zip(places, nondominated(losses), strict=True) if kept]
    front.sort(key=lambda place: trials[place][across.name])
    return Panel(across.name, upwards.name, tuple(front))
