"""Some of a study's trials: those in certain states, within bounds, the last few."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from rank_search.fronts import names, rows
from rank_search.fronts.queries import FrontQuery, require_answerable
from rank_search.fronts.records import StudyRecord, TrialRow
from rank_search.fronts.tables import trial
from rank_search.point import Bound, State


@dataclass(frozen=True)
class Listing:
    """Which trials: see `Store.listed`."""

    where: Sequence[Bound] = ()
    states: Collection[State] = ()
    limit: int | None = None


def listed(connection: Connection, study: StudyRecord, wanted: Listing) -> list[TrialRow]:
    """The trials that are asked for, by number.

    Raises:
        QueryError: a name that was never measured, or a limit below 1.
    """
    require_answerable(study, FrontQuery(where=wanted.where, limit=wanted.limit))
    query = select(trial.c.id, trial.c.budget).where(trial.c.study_id == study.id).order_by(trial.c.number)
    if wanted.states:
        query = query.where(trial.c.state.in_([state.value for state in wanted.states]))
    budgets = {row.id: row.budget for row in connection.execute(query)}
    kept = _within(connection, study, wanted.where, budgets) if wanted.where else list(budgets)
    return rows.read(connection, study, kept[-wanted.limit :] if wanted.limit else kept)


def _within(
    connection: Connection, study: StudyRecord, bounds: Sequence[Bound], budgets: dict[int, float]
) -> list[int]:
    """Those within every bound; a trial in which its name was not measured is not."""
    asked = [bound.name for bound in bounds]
    measured = rows.at_their_own(budgets, rows.at_every_budget(connection, list(budgets)))
    names.require_known(connection, study, asked, (), measured)
    found = names.with_choices(connection, asked, measured)
    return [number for number, numbers in found.items() if all(each.holds(numbers, study.dense) for each in bounds)]
