"""What a picture of a front shows: for each pair of measurements the trials, their front, and the dense model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rank_search.errors import QueryError
from rank_search.pareto import Panel
from rank_search.point import State
from rank_search.store import Store, StudyRecord, TrialRow, panels_of

Pairs = tuple[tuple[float, float], ...]
"""Coordinates: across, upwards."""


@dataclass(frozen=True)
class DrawnPanel:
    """Two measurements of a study against each other, ready to be drawn.

    Attributes:
        across, upwards: their names; `upwards` is the study's earlier objective.
        dominated: complete trials off the front of the two.
        front: its members, from left to right.
        dense: where the dense model stands, if both were measured on it.
        knee: where the knee of the front of all these measurements stands, and its number; None without a front.
    """

    study: str
    across: str
    upwards: str
    dominated: Pairs
    front: Pairs
    dense: tuple[float, float] | None
    knee: tuple[int, tuple[float, float]] | None


def drawn_panels(store: Store, study: StudyRecord, names: Sequence[str] | None = None) -> list[DrawnPanel]:
    """A panel for each pair of these measurements, or of the study's objectives.

    Raises:
        QueryError: fewer than two names, or one that was never measured.
    """
    wanted = list(dict.fromkeys(names or study.objective_names))
    if len(wanted) < 2:
        raise QueryError(
            f"{', '.join(wanted) or 'Nothing'} cannot be drawn alone: a picture sets two or more measurements against "
            "each other. Name them with --objectives, such as 'error,macs'."
        )
    front = store.front(study, objectives=names)
    knee = front.knee() if front else None
    rows = store.trials(study)
    return [_drawn(study, panel, rows, knee) for panel in panels_of(study, rows, wanted)]


def _drawn(study: StudyRecord, panel: Panel, rows: Sequence[TrialRow], knee: TrialRow | None) -> DrawnPanel:
    members = set(panel.front)
    others = [row for place, row in enumerate(rows) if place not in members and row.state is State.COMPLETE]
    knees = [] if knee is None else [knee.measurements]
    return DrawnPanel(
        study=study.name,
        across=panel.across,
        upwards=panel.upwards,
        dominated=_pairs(panel, (row.measurements for row in others)),
        front=_pairs(panel, (rows[place].measurements for place in panel.front)),
        dense=next(iter(_pairs(panel, [study.dense])), None),
        knee=None if knee is None else (knee.number, _pairs(panel, knees)[0]),
    )


def _pairs(panel: Panel, measured: Iterable[Mapping[str, float]]) -> Pairs:
    """Where those stand that have measured both."""
    wanted = {panel.across, panel.upwards}
    return tuple((each[panel.across], each[panel.upwards]) for each in measured if wanted <= each.keys())
