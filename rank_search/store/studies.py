"""Studies in the database: joining one, finding one, counting their trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection, Row, func, insert, select, update

from rank_search.basics import nearest
from rank_search.errors import QueryError
from rank_search.point import Objective
from rank_search.store import changes, tables
from rank_search.store.activity import by_state
from rank_search.store.claims import lock
from rank_search.store.moments import now
from rank_search.store.records import PriorRow, StudyRecord, StudySummary


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that can be stored and compared: those that are not NaN or infinite."""
    return {name: float(number) for name, number in numbers.items() if math.isfinite(number)}


def join(connection: Connection, wanted: StudyRecord, location: str, accept_changes: bool = False) -> StudyRecord:
    """The stored study of that name; it is written if there is none.

    Args:
        accept_changes: of the code of the task and of plugins: they are noted in the study.

    Raises:
        StudyMismatchError: the stored one was made from something else.
    """
    found = find(connection, wanted.name)
    if found is None:
        return _create(connection, wanted)
    lock(connection, found)
    return changes.see_to(connection, wanted, found, location, accept_changes)


def find(connection: Connection, name: str) -> StudyRecord | None:
    row = connection.execute(select(tables.study).where(tables.study.c.name == name)).one_or_none()
    return None if row is None else _record(connection, row)


def get(connection: Connection, name: str, location: str) -> StudyRecord:
    """The study of that name.

    Raises:
        QueryError: there is none.
    """
    found = find(connection, name)
    if found is None:
        names = connection.scalars(select(tables.study.c.name))
        raise QueryError(f"The store {location} has no study {name!r}{nearest(name, names)}")
    return found


def set_target(connection: Connection, study: StudyRecord, target: int) -> None:
    """Note how many trials are to be reached.

    Raises:
        StoreError: the study is not in this store.
    """
    lock(connection, study)
    connection.execute(update(tables.study).where(tables.study.c.id == study.id).values(target=target))


def amend_dense(connection: Connection, study: StudyRecord, measurements: Mapping[str, float]) -> StudyRecord:
    """Add measurements of the dense model; returns the study as it is then.

    Raises:
        StoreError: the study is not in this store.
    """
    lock(connection, study)
    there = connection.execute(select(tables.study.c.dense).where(tables.study.c.id == study.id)).scalar_one()
    dense = finite(measurements) | there
    connection.execute(update(tables.study).where(tables.study.c.id == study.id).values(dense=dense))
    return replace(study, dense=dense)


def summaries(connection: Connection) -> list[StudySummary]:
    """All studies, in the order they were made."""
    rows = connection.execute(select(tables.study).order_by(tables.study.c.id)).all()
    return [_summary(connection, row) for row in rows]


def _create(connection: Connection, wanted: StudyRecord) -> StudyRecord:
    made = replace(wanted, dense=finite(wanted.dense), created=now(connection))
    query = (
        insert(tables.study)
        .values(
            name=made.name,
            fingerprint=dict(made.fingerprint),
            space=dict(made.space),
            reference_point=dict(made.reference_point),
            ideal=dict(made.ideal),
            dense=made.dense,
            budget=made.budget,
            created=made.created,
            artifacts=made.artifacts,
            target=made.target,
            uid=made.uid,
        )
        .returning(tables.study.c.id)
    )
    made = replace(made, id=connection.execute(query).scalar_one())
    _insert_objectives(connection, made)
    _insert_priors(connection, made)
    return made


def _insert_objectives(connection: Connection, study: StudyRecord) -> None:
    rows = [
        {"study_id": study.id, "position": position, "name": each.name, "direction": each.direction}
        for position, each in enumerate(study.objectives)
    ]
    connection.execute(insert(tables.objective), rows)


def _insert_priors(connection: Connection, study: StudyRecord) -> None:
    rows = [{"study_id": study.id, **vars(prior)} for prior in study.priors]
    if rows:
        connection.execute(insert(tables.prior), rows)


def _record(connection: Connection, row: Row[*tuple[object, ...]]) -> StudyRecord:
    return StudyRecord(
        name=row.name,
        fingerprint=row.fingerprint,
        space=row.space,
        objectives=_objectives(connection, row.id),
        reference_point=row.reference_point,
        ideal=row.ideal,
        dense=row.dense,
        budget=row.budget,
        priors=_priors(connection, row.id),
        artifacts=row.artifacts,
        target=row.target,
        uid=row.uid,
        changes=changes.accepted(connection, row.id),
        id=row.id,
        created=row.created,
    )


def _objectives(connection: Connection, study_id: int) -> tuple[Objective, ...]:
    table = tables.objective.c
    query = select(table.name, table.direction).where(table.study_id == study_id).order_by(table.position)
    return tuple(Objective(name, direction) for name, direction in connection.execute(query))


def _priors(connection: Connection, study_id: int) -> tuple[PriorRow, ...]:
    table = tables.prior.c
    columns = [column for column in table if column.name != "study_id"]
    query = select(*columns).where(table.study_id == study_id).order_by(table.layer, table.factorization, table.axis)
    return tuple(PriorRow(**row._mapping) for row in connection.execute(query))


def _summary(connection: Connection, row: Row[*tuple[object, ...]]) -> StudySummary:
    trial = tables.trial.c
    on_front = select(func.count()).where(trial.study_id == row.id, trial.eligible, trial.dominated_by.is_(None))
    in_flight = select(func.count()).where(tables.claim.c.study_id == row.id)
    return StudySummary(
        name=row.name,
        created=row.created,
        objectives=_objectives(connection, row.id),
        trials=by_state(connection, row.id),
        in_flight=connection.scalar(in_flight) or 0,
        on_front=connection.scalar(on_front) or 0,
    )
