"""Some of a study's trials: those in certain states, within bounds, the last few."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from rank_search.point import Condition, State
from rank_search.store import rows
from rank_search.store.queries import FrontQuery, meeting, require_answerable
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
    kept = list(budgets)
    if wanted.where:
        measured = rows.at_their_own(budgets, rows.at_every_budget(connection, kept))
        kept = meeting(connection, study, asked, measured)
    return rows.read(connection, study, kept[-wanted.limit :] if wanted.limit else kept)
