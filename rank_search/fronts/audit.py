"""The auditor: recomputes what the store says about a study, and puts every disagreement into words."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from rank_search.fronts import rows, tables
from rank_search.fronts.dominance import nondominated
from rank_search.fronts.records import StudyRecord, TrialRow
from rank_search.fronts.tables import claim, trial
from rank_search.point import Artifact, State

_AT_ONCE: Final = 1_000

Choices = set[tuple[str, str, str, float | None]]


def problems(connection: Connection, study: StudyRecord, folder: Path | None) -> list[str]:
    """Everything that does not agree, in the order of recording; nothing if all is well."""
    columns = select(trial.c.id, trial.c.number, trial.c.point_key, trial.c.eligible, trial.c.dominated_by)
    recorded = connection.execute(columns.where(trial.c.study_id == study.id).order_by(trial.c.id)).all()
    found = [*_front_problems(connection, study, recorded), *_claim_problems(connection, study)]
    for start in range(0, len(recorded), _AT_ONCE):
        found += _trial_problems(connection, study, recorded[start : start + _AT_ONCE], folder)
    return found


def _front_problems(
    connection: Connection, study: StudyRecord, recorded: Sequence[Row[*tuple[Any, ...]]]
) -> Iterator[str]:
    """The past and present front against the losses alone."""
    measured = rows.measurements(connection, [row.id for row in recorded if row.eligible])
    losses = {trial_id: list(study.losses(each).values()) for trial_id, each in measured.items()}
    judged = [row for row in recorded if row.eligible and len(losses.get(row.id, ())) == len(study.objectives)]
    table = [losses[row.id] for row in judged]
    numbers = {row.id: row.number for row in recorded}
    for row, dominator in zip(judged, first_dominators(table), strict=True):
        expected = None if dominator is None else judged[dominator].id
        if row.dominated_by != expected:
            yield (
                f"Trial {row.number} was first dominated by {_name(numbers, expected)}; "
                f"the store says {_name(numbers, row.dominated_by)}."
            )
    for row, kept in zip(judged, nondominated(table) if table else (), strict=True):
        if kept != (row.dominated_by is None):
            yield f"Trial {row.number} is {'' if kept else 'not '}on the front; the store says otherwise."


def first_dominators(losses: Sequence[Sequence[float]]) -> list[int | None]:
    """Who dominated each row first: a member of the front of its time, or a later row; `None` for nobody."""
    import numpy as np

    table = np.asarray(losses, dtype=float)
    first: list[int | None] = [None] * len(table)
    front = np.empty(0, dtype=int)
    for newcomer, mine in enumerate(table):
        members = table[front]
        no_worse, no_better = (members <= mine).all(axis=1), (members >= mine).all(axis=1)
        dominators, beaten = front[no_worse & ~no_better], front[no_better & ~no_worse]
        if len(dominators):
            first[newcomer] = int(dominators[0])
            continue
        for loser in beaten:
            first[loser] = newcomer
        front = np.append(front[~(no_better & ~no_worse)], newcomer)
    return first


def _claim_problems(connection: Connection, study: StudyRecord) -> Iterator[str]:
    both = select(claim.c.number).join(
        trial, (trial.c.study_id == claim.c.study_id) & (trial.c.number == claim.c.number)
    )
    for number in connection.scalars(both.where(claim.c.study_id == study.id)):
        yield f"Trial {number} is finished, and yet still claimed."


def _trial_problems(
    connection: Connection, study: StudyRecord, recorded: Sequence[Row[*tuple[Any, ...]]], folder: Path | None
) -> Iterator[str]:
    ids = [row.id for row in recorded]
    chosen = _choices(connection, ids)
    for row, found in zip(recorded, rows.read(connection, study, ids), strict=True):
        yield from _point_problems(found, row.point_key, chosen[row.id])
        yield from _number_problems(found, study, row.eligible)
        if folder is not None:
            yield from _file_problems(found, folder)


def _choices(connection: Connection, ids: Sequence[int]) -> Mapping[int, Choices]:
    query = select(tables.choice).where(tables.choice.c.trial_id.in_(ids))
    found: defaultdict[int, Choices] = defaultdict(set)
    for trial_id, layer, factorization, axis, value in connection.execute(query):
        found[trial_id].add((layer, factorization, axis, value))
    return found


def _point_problems(row: TrialRow, key: str, chosen: Choices) -> Iterator[str]:
    if row.point.key != key:
        yield f"Trial {row.number}: the digest of its point is {row.point.key[:12]}…, the store says {key[:12]}…."
    if set(rows.choices_of(row.point)) != chosen:
        yield f"Trial {row.number}: its choices, row by row, are not those of its point."


def _number_problems(row: TrialRow, study: StudyRecord, eligible: bool) -> Iterator[str]:
    for name, value in row.measurements.items():
        if not math.isfinite(value):
            yield f"Trial {row.number}: {name} is {value}, which is not a finite number."
    complete = row.state is State.COMPLETE
    if complete and len(row.losses) < len(study.objectives):
        missing = [name for name in study.objective_names if name not in row.losses]
        yield f"Trial {row.number} is complete, and yet has no {', '.join(missing)}."
    if eligible != (complete and row.budget >= study.budget):
        yield (
            f"Trial {row.number} is {row.state} at budget {row.budget:g} of {study.budget:g}; "
            f"the store says that it {'takes' if eligible else 'does not take'} part in the front."
        )
    if row.dominated_by is not None and not eligible:
        yield f"Trial {row.number} takes no part in the front, and yet the store says who dominates it."


def _file_problems(row: TrialRow, folder: Path) -> Iterator[str]:
    for artifact in row.artifacts:
        complaint = _complaint(artifact, folder / artifact.location)
        if complaint:
            yield f"Trial {row.number}: its {artifact.kind}, {artifact.location}, {complaint}."


def _complaint(artifact: Artifact, file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if len(content) != artifact.bytes:
        return f"has {len(content)} bytes, and had {artifact.bytes} when it was recorded"
    digest = hashlib.sha256(content).hexdigest()
    return "" if digest == artifact.sha256 else "has other content than when it was recorded"


def _name(numbers: Mapping[int, int], trial_id: int | None) -> str:
    if trial_id is None:
        return "nobody"
    return f"trial {numbers[trial_id]}" if trial_id in numbers else f"a trial of another study (row {trial_id})"
