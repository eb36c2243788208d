"""Which coordinates went with which objective: rank correlations over the trials of the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rank_search.store import TrialRow

FEWEST: Final = 12
"""Below this many trials a correlation says nothing."""

MOST: Final = 2000
"""More trials would change no digit that is shown by much."""

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """How closely a coordinate goes with an objective.

    Attributes:
        strength: −1 to 1; for a coordinate without an order, such as a factorization, 0 to 1.
        ordered: whether there is an order, so that the sign says something.
    """

    coordinate: str
    strength: float
    ordered: bool


def associations(rows: Sequence[TrialRow], objectives: Sequence[str]) -> dict[str, list[Association]]:
    """For each objective its association with every coordinate that varied, strongest first.

    For a number, Spearman's ρ: the correlation of the ranks. For a category, the correlation ratio of the ranks,
    η = √(SS_between / SS_total), the root of what Kruskal and Wallis (1952, "Use of ranks in one-criterion variance
    analysis") call H/(n − 1); both are 0 for no association, and ±1 for one in which the coordinate says all.

    Edge cases: nothing for fewer than 12 trials, or if all have measured the same; ties share their mean rank; trials
    without coordinates do not count; of more than 2000 trials as many are taken, evenly. Complexity: O(c·n log n) for
    c coordinates.
    """
    kept = [row for row in rows if row.sampler.get("coordinates")]
    kept = kept[:: max(1, len(kept) // MOST)] if len(kept) >= FEWEST else []
    given = [row.sampler["coordinates"] for row in kept]
    names = [name for name in (given[0] if given else ()) if all(name in coordinates for coordinates in given)]
    columns = {name: [coordinates[name] for coordinates in given] for name in names}
    return {each: _sorted(columns, [row.measurements[each] for row in kept]) for each in objectives}


def _sorted(columns: Mapping[str, Sequence[Any]], values: Sequence[float]) -> list[Association]:
    if len(set(values)) < 2:
        return []
    return sorted(_each(columns, _ranks(values)), key=lambda each: -abs(each.strength))


def _each(columns: Mapping[str, Sequence[Any]], ranks: Column) -> list[Association]:
    found = []
    for name, values in columns.items():
        if len(set(values)) > 1:
            ordered = not any(isinstance(value, str | bool) for value in values)
            strength = _correlation(_ranks(values), ranks) if ordered else _correlation_ratio(values, ranks)
            found.append(Association(name, strength, ordered))
    return found


def _ranks(values: Sequence[float]) -> Column:
    """From 1; ties share their mean."""
    _, places, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ranks: Column = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _correlation(one: Column, other: Column) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def _correlation_ratio(values: Sequence[Any], ranks: Column) -> float:
    """Of the mean of each category around the mean of all."""
    _, places = np.unique([str(value) for value in values], return_inverse=True)
    counts = np.bincount(places)
    means = np.bincount(places, weights=ranks) / counts
    between = counts @ (means - ranks.mean()) ** 2
    return float(np.sqrt(between / ((ranks - ranks.mean()) ** 2).sum()))
