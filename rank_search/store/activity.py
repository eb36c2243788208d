"""What goes on in a study: for whoever watches it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from rank_search.point import State
from rank_search.store import claims
from rank_search.store.records import Activity, StudyRecord
from rank_search.store.tables import UtcDateTime, trial

_OF_STUDY: Final = trial.c.study_id == bindparam("study")
_BY_STATE: Final = select(trial.c.state, func.count()).where(_OF_STUDY).group_by(trial.c.state)
_BY_WORKER: Final = (
    select(trial.c.worker, func.count())
    .where(_OF_STUDY, trial.c.finished >= bindparam("since", type_=UtcDateTime))
    .group_by(trial.c.worker)
)
_LAST: Final = select(func.max(trial.c.finished)).where(_OF_STUDY)


def activity(connection: Connection, study: StudyRecord, since: datetime) -> Activity:
    """The trials by state, those in flight, and those that finished since that moment."""
    recent = {"study": study.id, "since": since}
    by_worker = {worker: count for worker, count in connection.execute(_BY_WORKER, recent)}  # noqa: C416 - typed rows
    return Activity(
        trials=by_state(connection, study.id),
        claims=tuple(claims.held(connection, study)),
        finished=sum(by_worker.values()),
        by_worker=by_worker,
        last_finished=connection.scalar(_LAST, {"study": study.id}),
    )


def by_state(connection: Connection, study_id: int) -> dict[State, int]:
    """How many trials there are in each state."""
    return {State(state): count for state, count in connection.execute(_BY_STATE, {"study": study_id})}
