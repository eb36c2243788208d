"""Some of a study's trials: those in certain states, within bounds, the last few."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from rank_search.point import Bound, Condition, State
from rank_search.store import names, rows
from rank_search.store.queries import FrontQuery, require_answerable
from rank_search.store.records import StudyRecord, TrialRow
from rank_search.store.tables import trial


@dataclass(frozen=True)
class Listing:
    """Which trials: see `Store.listed`."""

    where: Sequence[Condition] = ()
    states: Collection[State] = ()
    limit: int | None = None


def listed(connection: Connection, study: StudyRecord, wanted: Listing) -> list[TrialRow]:
    """The trials that are asked for, by number.

    Raises:
        QueryError: a name that was never measured, or a limit below 1.
    """
    asked = FrontQuery(where=wanted.where, limit=wanted.limit)
    require_answerable(study, asked)
    query = select(trial.c.id, trial.c.budget).where(trial.c.study_id == study.id).order_by(trial.c.number)
    if wanted.states:
        query = query.where(trial.c.state.in_([state.value for state in wanted.states]))
    budgets = {row.id: row.budget for row in connection.execute(query)}
    kept = _meeting(connection, study, asked, budgets) if wanted.where else list(budgets)
    return rows.read(connection, study, kept[-wanted.limit :] if wanted.limit else kept)


def _meeting(connection: Connection, study: StudyRecord, asked: FrontQuery, budgets: dict[int, float]) -> list[int]:
    """Those that meet every condition; a trial in which the name of a bound was not measured is not within it."""
    measured = rows.at_their_own(budgets, rows.at_every_budget(connection, list(budgets)))
    names.require_known(connection, study, asked.bound_names, (), measured)
    found = names.with_choices(connection, asked.bound_names, measured)
    bounds = [each for each in asked.where if isinstance(each, Bound)]
    met = names.meeting(connection, study, asked.chosen_layers, list(found))
    return [number for number in met if all(each.holds(found[number], study.dense) for each in bounds)]
