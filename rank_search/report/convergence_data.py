"""How the hypervolume grew: over trials, over time, and what the seed points alone were worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from rank_search.store import TOLERANCE, StudyRecord, TrialRow, box_of, convergence_of, hypervolume_of, takes_part

BY_SAMPLERS: Final = frozenset({"auto", "random"})
"""Labels of trials that a sampler proposed, by any name of the study's own sampler."""


def convergence_data(
    study: StudyRecord, rows: Sequence[TrialRow], sampler: str, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The hypervolume after some of the trials, which are in the order of recording.

    `trials`: how many had been recorded. `hours`: when that was, since the first one began. `shares`: the hypervolume
    then, a share of the box near the dense model: its reference is where `tolerated` ends, so that models nobody would
    take do not count as progress. `seeds`: that of all seed points alone; None where no sampler came after them, or
    none came before it.
    """
    if not rows or not (study.ideal.keys() & study.reference_point.keys()).issuperset(study.objective_names):
        return {"trials": [], "hours": [], "shares": [], "seeds": None}
    box = box_of(study, tolerance)
    found = convergence_of(study, rows, box)
    begun = min(row.started for row in rows)
    ended = list(accumulate((row.finished for row in rows if row.cut_of is None), max))
    eligible = [row for row in rows if takes_part(study, row)]
    given = [row for row in eligible if is_seed(row, sampler)]
    return {
        "trials": list(found.trials),
        "hours": [(ended[count - 1] - begun).total_seconds() / 3600 for count in found.trials],
        "shares": list(found.shares),
        "seeds": hypervolume_of(study, given, box) if 0 < len(given) < len(eligible) else None,
    }


def is_seed(row: TrialRow, sampler: str) -> bool:
    """Whether a trial's point was given, and neither proposed by a sampler nor found by cutting a trained model."""
    return row.cut_of is None and row.sampler.get("label", "") not in BY_SAMPLERS | {sampler}
