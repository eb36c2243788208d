"""Studies that are to go, or to be called something else: all their rows in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, select, union, update

from rank_search.errors import QueryError
from rank_search.store import claims, studies, tables
from rank_search.store.records import StudyRecord
from rank_search.store.study_folder import in_store_folder

_NAME: Final = "study.name"


@dataclass(frozen=True)
class Removed:
    """What there was of a study that is gone: how many trials, the names of their files, and the keys of all points
    that were tried or begun."""

    trials: int
    files: list[str]
    keys: list[str]


def remove(connection: Connection, name: str, location: str, heard_since: datetime) -> Removed:
    """Delete every row of the study; returns what there was.

    Raises:
        QueryError: there is no such study, or a driver works on it.
    """
    study = _idle(connection, name, location, heard_since)
    trials = select(tables.trial.c.id).where(tables.trial.c.study_id == study.id)
    count = len(connection.scalars(trials).all())
    names = select(tables.artifact.c.location).where(tables.artifact.c.trial_id.in_(trials)).distinct()
    files = list(connection.scalars(names))
    keys = union(
        *(select(each.c.point_key).where(each.c.study_id == study.id) for each in (tables.trial, tables.claim))
    )
    points = list(connection.scalars(keys))
    for table in reversed(tables.metadata.sorted_tables):  # whoever refers to a row goes before it
        if table is not tables.study:
            connection.execute(delete(table).where(_of_study(table, study.id)))
    connection.execute(delete(tables.study).where(tables.study.c.id == study.id))
    return Removed(count, files, points)


def rename(connection: Connection, name: str, new: str, location: str, heard_since: datetime) -> list[str]:
    """Give the study another name, and its confirmations NAME@EPOCHS with it; returns all the new names.

    The files stay where they are, and the study keeps where that is.

    Raises:
        QueryError: there is no such study, a driver works on it, or one has the new name.
    """
    if not new.strip():
        raise QueryError(f"{new!r} is no name for a study. Give another one.")
    names = {name: new} | {each: new + each.removeprefix(name) for each in confirmations(connection, name)}
    moved = [_idle(connection, each, location, heard_since) for each in names]
    for study in moved:
        if studies.find(connection, names[study.name]) is not None:
            raise QueryError(f"{location} already has a study {names[study.name]!r}. Choose another name.")
        _rename(connection, study, names[study.name])
    return list(names.values())


def confirmations(connection: Connection, name: str) -> list[str]:
    """The studies in which `confirm` keeps trials of this one: NAME@EPOCHS."""
    names = connection.scalars(select(tables.study.c.name).order_by(tables.study.c.id))
    return [each for each in names if each.startswith(f"{name}@") and _is_number(each.removeprefix(f"{name}@"))]


def _rename(connection: Connection, study: StudyRecord, new: str) -> None:
    changed = {
        "name": new,
        "fingerprint": _renamed(study.fingerprint, new),
        "space": _renamed_in(study.space, new),
        "artifacts": study.artifacts or ("" if study.uid else in_store_folder(study.name)),
    }
    connection.execute(update(tables.study).where(tables.study.c.id == study.id).values(changed))


def _renamed(fingerprint: Mapping[str, str], new: str) -> dict[str, str]:
    return {**fingerprint, **({_NAME: new} if _NAME in fingerprint else {})}


def _renamed_in(space: Mapping[str, Any], new: str) -> dict[str, Any]:
    file = space.get("study", {})
    if "study" not in file:
        return dict(space)
    return {**space, "study": {**file, "study": {**file["study"], "name": new}}}


def _idle(connection: Connection, name: str, location: str, heard_since: datetime) -> StudyRecord:
    """The study, locked, if no driver has been heard of since then that holds a trial of it."""
    study = studies.get(connection, name, location)
    claims.lock(connection, study)
    study = studies.get(connection, name, location)
    alive = {each.worker for each in claims.held(connection, study) if each.worker and each.heartbeat >= heard_since}
    if alive:
        raise QueryError(
            f"Study {name!r} has running trials, held by {', '.join(sorted(alive))}; it cannot be deleted or renamed "
            "now. Stop the drivers first, or wait until they are silent: `rank-search status`."
        )
    return study


def _of_study(table: Table, study_id: int) -> Any:
    if "study_id" in table.c:
        return table.c.study_id == study_id
    return table.c.trial_id.in_(select(tables.trial.c.id).where(tables.trial.c.study_id == study_id))


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False
