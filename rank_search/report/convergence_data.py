"""How the hypervolume grew: over trials, over time, and what the seed points alone were worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rank_search.pareto import hypervolume, nondominated
from rank_search.store import TOLERANCE, StudyRecord, TrialRow

CHECKPOINTS: Final = 160
"""The hypervolume is taken after so many trials at most: half of them spread evenly, half by factors."""

BY_SAMPLERS: Final = frozenset({"auto", "random"})
"""Labels of trials that a sampler proposed, whatever the study's own sampler is called."""


@dataclass(frozen=True)
class Convergence:
    """The hypervolume after some of the trials.

    Attributes:
        trials: how many trials had been recorded.
        hours: when that was, since the first one began.
        shares: the hypervolume then, a share of the box between ideal and the worst that is tolerated.
        seeds: that of all seed points alone; None where no sampler came after them, or none came before it.
    """

    trials: Sequence[int]
    hours: Sequence[float]
    shares: Sequence[float]
    seeds: float | None


def is_seed(row: TrialRow, sampler: str) -> bool:
    """Whether a trial's point was given, and not proposed by a sampler."""
    return row.sampler.get("label", "") not in BY_SAMPLERS | {sampler}


def converged(
    study: StudyRecord,
    rows: Sequence[TrialRow],
    eligible: Sequence[TrialRow],
    sampler: str,
    tolerance: float = TOLERANCE,
) -> Convergence:
    """The hypervolume over the trials, which are in the order of recording.

    Of the box near the dense model: its reference is where `tolerated` ends, so that models nobody would take do not
    count as progress.

    Args:
        rows: all trials. eligible: those that take part in the front.

    Complexity: a few hundred hypervolumes of the fronts between; about a second for 10,000 trials of two objectives.
    """
    names = study.objective_names
    if not rows or not all(name in corner for name in names for corner in (study.ideal, study.reference_point)):
        return Convergence((), (), (), None)
    study = replace(study, reference_point={**study.reference_point, **study.tolerated(tolerance)})
    taking_part = {row.number for row in eligible}
    counts = _checkpoints(len(rows))
    begun = min(row.started for row in rows)
    shares, hours, front, last = [], [], np.zeros((0, len(names))), 0
    for count in counts:
        new = _table([row for row in rows[last:count] if row.number in taking_part], names)
        front = _front(np.concatenate([front, new]))
        shares.append(_share(study, front))
        hours.append((max(row.finished for row in rows[:count]) - begun).total_seconds() / 3600)
        last = count
    given = [row for row in eligible if is_seed(row, sampler)]
    both = 0 < len(given) < len(eligible)
    return Convergence(counts, hours, shares, _share(study, _front(_table(given, names))) if both else None)


def _checkpoints(count: int) -> list[int]:
    half = CHECKPOINTS // 2
    places = np.concatenate([np.linspace(1, count, half), np.geomspace(1, count, half)])
    return [int(place) for place in np.unique(places.round())] if count > CHECKPOINTS else list(range(1, count + 1))


def _table(rows: Sequence[TrialRow], names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[row.losses[name] for name in names] for row in rows], dtype=float).reshape(-1, len(names))


def _front(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return table[nondominated(table)] if len(table) else table


def _share(study: StudyRecord, table: NDArray[np.float64]) -> float:
    corners = ([corner[name] for name in study.objective_names] for corner in (study.reference_point, study.ideal))
    return hypervolume(table, *corners) if len(table) else 0.0
