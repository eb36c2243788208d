"""Claims: a point is claimed by one worker, kept alive by heartbeats, and handed on when the worker dies.

A trial that was stopped at a rung is claimed again, under its number, to go on: see `promote`.

Whoever gives a number or records a trial first locks the study's row, so that there is one such writer at a time.
SQLite locks the whole file when the transaction begins, and ignores `FOR UPDATE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)

from rank_search.errors import StoreError
from rank_search.point import Point, State
from rank_search.store import tables
from rank_search.store.moments import now
from rank_search.store.records import NEVER, Claim, StudyRecord
from rank_search.store.tables import claim, trial

_LOCK: Final = (
    select(tables.study.c.id)
    .where(tables.study.c.id == bindparam("study"), tables.study.c.name == bindparam("name"))
    .with_for_update()
)
_IS_TAKEN: Final = select(
    or_(
        *(
            exists().where(table.c.study_id == bindparam("study"), table.c.point_key == bindparam("key"))
            for table in (claim, trial)
        )
    )
)
_HIGHEST: Final = union_all(
    *(select(func.max(table.c.number)).where(table.c.study_id == bindparam("study")) for table in (claim, trial))
)
_INSERT: Final = insert(claim)
_PROMOTABLE: Final = select(trial.c.point, trial.c.point_key, trial.c.sampler).where(
    trial.c.study_id == bindparam("study"),
    trial.c.number == bindparam("of"),
    trial.c.state == State.STOPPED.value,
    trial.c.budget < bindparam("budget"),
    ~exists().where(claim.c.study_id == bindparam("study"), claim.c.number == bindparam("of")),
)
_CUTS: Final = (
    select(func.count()).select_from(trial).where(trial.c.study_id == bindparam("study"), trial.c.cut_of.is_not(None))
)
_HELD: Final = select(claim).where(claim.c.study_id == bindparam("study")).order_by(claim.c.number)


def lock(connection: Connection, study: StudyRecord) -> None:
    """Wait until no other transaction writes to this study.

    Raises:
        StoreError: the study is not in this store.
    """
    if connection.scalar(_LOCK, {"study": study.id, "name": study.name}) is None:
        raise StoreError(f"Study {study.name!r} is not in this store. Join it first, with `Store.join`.")


def take(connection: Connection, study: StudyRecord, wanted: Claim, below: int | None) -> Claim | None:
    """Claim the point under the next free number; `None` if it has been claimed or tried before, or none is left."""
    lock(connection, study)
    number = next_number(connection, study)
    is_over = below is not None and begun(connection, study) >= below
    if is_over or is_taken(connection, study, wanted.point):
        return None
    return _insert(connection, study, replace(wanted, number=number, started=now(connection)))


def is_taken(connection: Connection, study: StudyRecord, point: Point) -> bool:
    """Whether the point has been claimed or tried before."""
    return bool(connection.scalar(_IS_TAKEN, {"study": study.id, "key": point.key}))


def promote(connection: Connection, study: StudyRecord, number: int, worker: str, budget: float) -> Claim | None:
    """Claim a stopped trial again; `None` if it is claimed, or not stopped below that budget."""
    lock(connection, study)
    row = connection.execute(_PROMOTABLE, {"study": study.id, "of": number, "budget": budget}).one_or_none()
    if row is None:
        return None
    point, sampler = Point.from_json(row.point), json.loads(row.sampler)
    again = Claim(number, point, worker, attempt=1, started=now(connection), sampler=sampler, budget=budget)
    return _insert(connection, study, again)


def _insert(connection: Connection, study: StudyRecord, made: Claim) -> Claim:
    """Write the claim, whose first heartbeat is when it was made."""
    new = replace(made, heartbeat=made.started)
    values = {
        "study_id": study.id,
        "number": new.number,
        "point": new.point.to_json(),
        "point_key": new.point.key,
        "worker": new.worker,
        "attempt": new.attempt,
        "started": new.started,
        "heartbeat": new.heartbeat,
        "sampler": json.dumps(dict(new.sampler)),
        "budget": new.budget,
    }
    connection.execute(_INSERT, values)
    return new


def next_number(connection: Connection, study: StudyRecord) -> int:
    """One more than the highest number of any claim and trial."""
    highest = connection.scalars(_HIGHEST, {"study": study.id}).all()
    return max((number + 1 for number in highest if number is not None), default=0)


def begun(connection: Connection, study: StudyRecord) -> int:
    """How many trials have been claimed or recorded, cuts of trained models aside."""
    return next_number(connection, study) - count_cuts(connection, study)


def count_cuts(connection: Connection, study: StudyRecord) -> int:
    """How many results are cuts of trained models."""
    return connection.scalar(_CUTS, {"study": study.id}) or 0


def held(connection: Connection, study: StudyRecord) -> list[Claim]:
    """The claims of the study, by number."""
    return [_claim(row) for row in connection.execute(_HELD, {"study": study.id})]


def first_orphan(connection: Connection, study: StudyRecord, dead: Callable[[Claim], bool]) -> Claim | None:
    """The first claim whose worker is dead."""
    return next((each for each in held(connection, study) if dead(each)), None)


def adopt(
    connection: Connection, study: StudyRecord, worker: str, dead: Callable[[Claim], bool]
) -> tuple[Claim, str] | None:
    """Hand the first orphan on to the worker, who may be the one that it had; returns whose it was, too."""
    lock(connection, study)
    orphan = first_orphan(connection, study, dead)
    if orphan is None:
        return None
    adopted = replace(orphan, worker=worker, attempt=orphan.attempt + 1, heartbeat=now(connection), is_taken_over=True)
    changed = {"worker": worker, "attempt": adopted.attempt, "heartbeat": adopted.heartbeat}
    connection.execute(update(claim).where(_still_held(study, orphan)).values(changed))
    return adopted, orphan.worker


def keep_alive(connection: Connection, study: StudyRecord, claims: Iterable[Claim]) -> list[Claim]:
    """Note that their workers are alive; returns the claims that are lost, handed on or recorded meanwhile.

    Without a claim it writes nothing, and yet succeeds only if the study can be written to.
    """
    lock(connection, study)
    beat = update(claim).values(heartbeat=now(connection))
    return [each for each in claims if connection.execute(beat.where(_still_held(study, each))).rowcount == 0]


def give_up(connection: Connection, study: StudyRecord, claims: Iterable[Claim]) -> None:
    """Leave the claims to whoever takes over next; a try that was given up does not count as one."""
    for each in claims:
        given_up = {"worker": "", "heartbeat": NEVER, "attempt": each.attempt - 1}
        orphan = update(claim).where(_still_held(study, each)).values(given_up)
        connection.execute(orphan)


def _still_held(study: StudyRecord, held: Claim) -> ColumnElement[bool]:
    return and_(
        claim.c.study_id == study.id,
        claim.c.number == held.number,
        claim.c.worker == held.worker,
        claim.c.attempt == held.attempt,
    )


def _claim(row: Row[*tuple[Any, ...]]) -> Claim:
    return Claim(
        number=row.number,
        point=Point.from_json(row.point),
        worker=row.worker,
        attempt=row.attempt,
        started=row.started,
        sampler=json.loads(row.sampler),
        budget=row.budget,
        heartbeat=row.heartbeat,
    )
