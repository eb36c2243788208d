"""What a picture of a front shows: for each pair of measurements the trials, their front, and the dense model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from rank_search.errors import QueryError
from rank_search.point import State
from rank_search.store import Store, StudyRecord, TrialRow

Pairs = tuple[tuple[float, float], ...]
"""Coordinates: across, upwards."""


@dataclass(frozen=True)
class Panel:
    """Two measurements of a study against each other.

    Attributes:
        across, upwards: their names; `upwards` is the study's earlier objective.
        dominated: complete trials off the front of the two.
        front: its members, from left to right.
        numbers: their trials.
        dense: where the dense model stands, if both were measured on it.
        knee: where the knee of the front of all these measurements stands, and its number; None without a front.
    """

    study: str
    across: str
    upwards: str
    dominated: Pairs
    front: Pairs
    numbers: tuple[int, ...]
    dense: tuple[float, float] | None
    knee: tuple[int, tuple[float, float]] | None


def panels_of(store: Store, study: StudyRecord, names: Sequence[str] | None = None) -> list[Panel]:
    """A panel for each pair of these measurements, or of the study's objectives.

    Raises:
        QueryError: fewer than two names, or one that was never measured.
    """
    wanted = list(dict.fromkeys(names or study.objective_names))
    if len(wanted) < 2:
        raise QueryError(
            f"A picture sets at least two measurements against each other; found {', '.join(wanted) or 'none'}. "
            "Name two with --objectives, such as 'error,macs'."
        )
    complete = [row for row in store.trials(study) if row.state is State.COMPLETE]
    front = store.front(study, objectives=names)
    knee = front.knee() if front else None
    return [_panel(store, study, complete, pair, knee) for pair in combinations(wanted, 2)]


def _panel(
    store: Store, study: StudyRecord, complete: Sequence[TrialRow], pair: tuple[str, str], knee: TrialRow | None
) -> Panel:
    upwards, across = pair
    front = store.front(study, objectives=[upwards, across])
    kept = sorted(front, key=lambda row: (row.measurements[across], row.number))
    members = {row.number for row in front}
    others = [row for row in complete if row.number not in members and {across, upwards} <= row.measurements.keys()]
    dense = study.dense
    return Panel(
        study=study.name,
        across=across,
        upwards=upwards,
        dominated=tuple((row.measurements[across], row.measurements[upwards]) for row in others),
        front=tuple((row.measurements[across], row.measurements[upwards]) for row in kept),
        numbers=tuple(row.number for row in kept),
        dense=(dense[across], dense[upwards]) if {across, upwards} <= dense.keys() else None,
        knee=None if knee is None else (knee.number, (knee.measurements[across], knee.measurements[upwards])),
    )
