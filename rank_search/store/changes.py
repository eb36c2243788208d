"""What a study is made from, compared with what it was made from; accepted changes are noted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, func, insert, select, update

from rank_search.errors import StudyMismatchError
from rank_search.store import tables
from rank_search.store.records import ChangeRow, StudyRecord

CODE: Final = "code "
"""How the names of the parts begin that are files of the task's code."""

_ACCEPTABLE: Final = (CODE, "plugin ")
_ABSENT: Final = "nothing"
_DIGEST: Final = re.compile("[0-9a-f]{64}")


def see_to(connection: Connection, wanted: StudyRecord, found: StudyRecord, location: str, accept: bool) -> StudyRecord:
    """The stored study, if it was made from the same, or once its changes are noted; of an older one the code is noted.

    Args:
        accept: changes of the code of the task and of plugins.

    Raises:
        StudyMismatchError: something has changed that is not accepted.
    """
    parts = _differing(wanted.fingerprint, found.fingerprint)
    is_noted = any(part.startswith(CODE) for part in found.fingerprint)
    changed = [part for part in parts if is_noted or not part.startswith(CODE)]
    refused = [part for part in changed if not (accept and part.startswith(_ACCEPTABLE))]
    if refused:
        raise StudyMismatchError(_complaint(refused, wanted, found, location))
    return _note(connection, wanted, found, parts) if parts else found


def accepted(connection: Connection, study_id: int) -> tuple[ChangeRow, ...]:
    """The changes of a study, in the order in which they were accepted."""
    table = tables.change.c
    query = select(table.part, table.before, table.after, table.accepted, table.last_trial_id)
    rows = connection.execute(query.where(table.study_id == study_id).order_by(table.position))
    return tuple(ChangeRow(**row._mapping) for row in rows)


def _differing(wanted: Mapping[str, str], found: Mapping[str, str]) -> Sequence[str]:
    return [part for part in sorted({*wanted, *found}) if wanted.get(part) != found.get(part)]


def _complaint(parts: Sequence[str], wanted: StudyRecord, found: StudyRecord, location: str) -> str:
    said = "; ".join(
        f"{part} is {_short(found.fingerprint.get(part, _ABSENT))} in the store, "
        f"{_short(wanted.fingerprint.get(part, _ABSENT))} now"
        for part in parts
    )
    law = (
        f"Study {found.name!r} in {location} was made from something else: {said}. "
        "A study is resumed only with what it was made from."
    )
    if not all(part.startswith(_ACCEPTABLE) for part in parts):
        return f"{law} Restore what has changed, or give the study another name or store."
    return (
        f"{law} Earlier measurements may not be comparable with new ones. Restore the code, or give the study another "
        "name or store; if the change affects no measurement, `rank-search run STUDY.toml --accept-changes` resumes "
        "the study and records the change in it."
    )


def _short(part: str) -> str:
    """The part as it is; of a digest the beginning."""
    return f"{part[:12]}…" if _DIGEST.fullmatch(part) else part


def _note(connection: Connection, wanted: StudyRecord, found: StudyRecord, parts: Sequence[str]) -> StudyRecord:
    trial, now = tables.trial.c, datetime.now(UTC)
    last = connection.scalar(select(func.max(trial.id)).where(trial.study_id == found.id)) or 0
    rows = [
        ChangeRow(part, found.fingerprint.get(part, ""), wanted.fingerprint.get(part, ""), now, last) for part in parts
    ]
    first = len(found.changes)
    values = [{"study_id": found.id, "position": first + place, **vars(row)} for place, row in enumerate(rows)]
    connection.execute(insert(tables.change), values)
    made_from = dict(wanted.fingerprint)
    connection.execute(update(tables.study).where(tables.study.c.id == found.id).values(fingerprint=made_from))
    return replace(found, fingerprint=made_from, changes=(*found.changes, *rows))
