"""What a study's trials are worth: their share of the reference box, how that grew, and pairs of objectives.

A trial takes part in the front if it is complete, at the full budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rank_search.pareto import Convergence, Panel, ReferenceBox, convergence, panels
from rank_search.point import State
from rank_search.store.records import StudyRecord, TrialRow


def takes_part(study: StudyRecord, row: TrialRow) -> bool:
    """Whether a trial takes part in the front."""
    return row.state is State.COMPLETE and row.budget >= study.budget


def box_of(study: StudyRecord, tolerance: float | None = None) -> ReferenceBox:
    """The box that hypervolumes are measured in; with a tolerance only the part near dense: see `tolerated`."""
    worst = {**study.reference_point, **({} if tolerance is None else study.tolerated(tolerance))}
    names = study.objective_names
    return ReferenceBox(tuple(study.ideal[name] for name in names), tuple(worst[name] for name in names))


def hypervolume_of(study: StudyRecord, rows: Iterable[TrialRow], box: ReferenceBox | None = None) -> float:
    """The share of a box, by default the study's, that these trials dominate; 0 for none."""
    losses = [_losses(study, row) for row in rows]
    return (box or box_of(study)).hypervolume(losses) if losses else 0.0


def convergence_of(
    study: StudyRecord, rows: Sequence[TrialRow], box: ReferenceBox, also: Iterable[int] = ()
) -> Convergence:
    """How the front's share of a box grew over all trials, in the order in which they were recorded: `convergence`.

    A trial counts once, with the cuts of its model.
    """
    results: list[list[tuple[float, ...]]] = []
    for row in rows:
        if row.cut_of is None:
            results.append([])
        results[-1] += [_losses(study, row)] if takes_part(study, row) else []
    return convergence(results, box, also)


def panels_of(study: StudyRecord, rows: Sequence[TrialRow], names: Sequence[str]) -> list[Panel]:
    """Each pair of these measurements; the fronts are places in `rows`."""
    measured = [row.measurements if takes_part(study, row) else {} for row in rows]
    return panels([study.objective(name) for name in names], measured)


def _losses(study: StudyRecord, row: TrialRow) -> tuple[float, ...]:
    return tuple(row.losses[name] for name in study.objective_names)
