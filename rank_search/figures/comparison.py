"""Studies side by side, in one box: what each had found after as many trials as all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rank_search.errors import QueryError
from rank_search.figures.drawn_panels import DrawnPanel, drawn_panels
from rank_search.pareto import Convergence, ReferenceBox
from rank_search.store import Store, StudyRecord, box_of, convergence_of

_COUNTS: Final = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class Comparison:
    """One or several studies under one label, such as the same search with several rng seeds.

    Attributes:
        panels: of the first study's front: one for each pair of objectives.
        progress: of each study, in the box that all compared studies share.
    """

    label: str
    studies: tuple[StudyRecord, ...]
    panels: tuple[DrawnPanel, ...]
    progress: tuple[Convergence, ...]

    def after(self, trials: int) -> tuple[float, float, float]:
        """The median of the studies' hypervolumes after that many trials, the least and the largest."""
        found = [each.after(trials) for each in self.progress]
        return median(found), min(found), max(found)

    @property
    def without_front(self) -> list[StudyRecord]:
        """Those of its studies that have no complete trial."""
        pairs = zip(self.studies, self.progress, strict=True)
        return [study for study, progress in pairs if not progress.members]

    @property
    def trials(self) -> int:
        """How many trials the shortest of its studies has."""
        return min(each.trials[-1] if each.trials else 0 for each in self.progress)


def compare_studies(store: Store, names: Sequence[str]) -> list[Comparison]:
    """The studies on shared axes.

    Args:
        names: of studies, each compared on its own; `LABEL=NAME,NAME,…` puts several studies under one label.

    Raises:
        QueryError: fewer than two, an unknown study, a label twice, or studies of different objectives.
    """
    groups = [_group(text) for text in names]
    labels = [label for label, _ in groups]
    if len(groups) < 2 or len(set(labels)) < len(labels):
        raise QueryError(f"{', '.join(labels) or 'Nothing'} cannot be compared: name two or more different studies.")
    found = {label: tuple(store.study(name) for name in members) for label, members in groups}
    everything = [study for studies in found.values() for study in studies]
    _require_alike(everything)
    box = ReferenceBox.around([box_of(study) for study in everything])
    rows = {study.name: store.trials(study) for study in everything}
    also = {*_COUNTS, *(sum(row.cut_of is None for row in found) for found in rows.values())}
    return [
        Comparison(
            label,
            studies,
            tuple(drawn_panels(store, studies[0])),
            tuple(convergence_of(study, rows[study.name], box, also) for study in studies),
        )
        for label, studies in found.items()
    ]


def rows_of(comparisons: Sequence[Comparison]) -> list[Mapping[str, Any]]:
    """A line for each: trials, members of the front, hypervolume after shared counts of trials and at the end."""
    shortest = min(each.trials for each in comparisons)
    counts = [count for count in _COUNTS if count <= shortest]
    return [
        {
            "study": each.label,
            "studies": len(each.studies),
            "trials": each.trials,
            "front": len(each.panels[0].front),
            "hypervolume": {str(count): _spread(each, count) for count in (*counts, shortest) if count},
        }
        for each in comparisons
    ]


def _spread(comparison: Comparison, count: int) -> str | float:
    middle, low, high = comparison.after(count)
    return round(middle, 4) if len(comparison.studies) == 1 else f"{middle:.4f} [{low:.4f}, {high:.4f}]"


def _group(text: str) -> tuple[str, list[str]]:
    label, sign, members = text.partition("=")
    return (label, [name for name in members.split(",") if name]) if sign and members else (text, [text])


def _require_alike(studies: Sequence[StudyRecord]) -> None:
    first = studies[0]
    for study in studies:
        if study.objectives != first.objectives:
            raise QueryError(
                f"{study.name!r} cannot be compared with {first.name!r}: it has the objectives "
                f"{_in_words(study)}, the other has {_in_words(first)}. Compare studies of the same objectives."
            )


def _in_words(study: StudyRecord) -> str:
    return ", ".join(f"{each.name} ({each.direction})" for each in study.objectives)
