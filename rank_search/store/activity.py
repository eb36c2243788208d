"""What goes on in a study: for whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, func, select

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
_IS_CUT: Final = trial.c.cut_of.is_not(None)
_LAST: Final = select(func.max(trial.c.finished)).where(_OF_STUDY)


def activity(connection: Connection, study: StudyRecord, since: datetime) -> Activity:
    """The trials by state, those in flight, and those that finished since that moment."""
    by_worker = _trained(connection, _BY_WORKER, {"study": study.id, "since": since})
    return Activity(
        trials=by_state(connection, study.id),
        claims=tuple(claims.held(connection, study)),
        finished=sum(by_worker.values()),
        by_worker=by_worker,
        last_finished=connection.scalar(_LAST, {"study": study.id}),
        cuts=claims.count_cuts(connection, study),
    )


def by_state(connection: Connection, study_id: int) -> dict[State, int]:
    """How many trials there are in each state, cuts aside."""
    return {State(state): count for state, count in _trained(connection, _BY_STATE, {"study": study_id}).items()}


def _trained(connection: Connection, query: Select[str, int], given: Mapping[str, Any]) -> dict[str, int]:
    """What the query counts, without the cuts: these few have an index of their own, and the others no longer rows."""
    cuts = dict(connection.execute(query.where(_IS_CUT), given).all())
    counted = {key: count - cuts.get(key, 0) for key, count in connection.execute(query, given)}
    return {key: count for key, count in counted.items() if count}
