"""The auditor: recomputes what the store says about a study, and puts every disagreement into words."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Row, select

from rank_search.errors import ArtifactError
from rank_search.pareto import nondominated
from rank_search.point import Artifact, State
from rank_search.store import rows, tables
from rank_search.store.records import StudyRecord, TrialRow
from rank_search.store.sql_in import in_values
from rank_search.store.tables import claim, trial

if TYPE_CHECKING:
    from rank_search.artifacts import ArtifactStore

_AT_ONCE: Final = 1_000

Choices = set[tuple[str, str, str, float | None]]

Files = list[tuple[int, Artifact]]
"""Number of a trial, and one of its artifacts."""


@dataclass(frozen=True)
class Suspect:
    """A file that is not as its row says, unless the row has gone meanwhile."""

    number: int
    artifact: Artifact
    message: str


def problems(connection: Connection, study: StudyRecord) -> tuple[list[str], Files]:
    """Everything that does not agree, in the order of recording (nothing if all is well), and the files to look at."""
    kept = (trial.c.id, trial.c.number, trial.c.budget, trial.c.point_key, trial.c.eligible, trial.c.dominated_by)
    of_study = select(*kept, trial.c.cut_of).where(trial.c.study_id == study.id)
    recorded = connection.execute(of_study.order_by(trial.c.id)).all()
    found = [
        *_front_problems(connection, study, recorded),
        *_claim_problems(connection, study),
        *_cut_problems(recorded),
    ]
    files: Files = []
    for start in range(0, len(recorded), _AT_ONCE):
        some = recorded[start : start + _AT_ONCE]
        trials = rows.read(connection, study, [row.id for row in some])
        found += _trial_problems(connection, study, some, trials)
        files += [(each.number, artifact) for each in trials for artifact in each.artifacts]
    return found, files


def file_problems(files: Files, artifacts: ArtifactStore) -> list[Suspect]:
    """The files that are missing, cut off or altered."""
    found = []
    for number, artifact in files:
        try:
            artifacts.read(artifact)
        except ArtifactError as error:
            found.append(Suspect(number, artifact, str(error)))
    return found


def confirmed(connection: Connection, study: StudyRecord, suspects: Sequence[Suspect]) -> list[str]:
    """Those that the store still lists."""
    table = tables.artifact.c
    listed = select(trial.c.number, table.kind, table.location).join(trial, trial.c.id == table.trial_id)
    of_study = listed.where(trial.c.study_id == study.id, in_values(trial.c.number, "numbers"))
    numbers = {suspect.number for suspect in suspects}
    found = {tuple(row) for row in connection.execute(of_study, {"numbers": numbers})}
    return [
        f"Trial {each.number}: its {each.artifact.kind}, {each.artifact.location}: {each.message}"
        for each in suspects
        if (each.number, each.artifact.kind, each.artifact.location) in found
    ]


def _front_problems(
    connection: Connection, study: StudyRecord, recorded: Sequence[Row[*tuple[Any, ...]]]
) -> Iterator[str]:
    """The past and present front against the losses alone."""
    budgets = {row.id: row.budget for row in recorded if row.eligible}
    measured = rows.at_their_own(budgets, rows.at_every_budget(connection, list(budgets), study.objective_names))
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
    no_promotion = both.where(claim.c.study_id == study.id, claim.c.budget <= trial.c.budget)
    for number in connection.scalars(no_promotion.order_by(claim.c.number)):
        yield f"Trial {number} is finished, and yet still claimed."


def _cut_problems(recorded: Sequence[Row[*tuple[Any, ...]]]) -> Iterator[str]:
    trained = {row.number for row in recorded if row.cut_of is None}
    for row in recorded:
        if row.cut_of is not None and row.cut_of not in trained:
            yield f"Trial {row.number} is a cut of trial {row.cut_of}, which is not there."


def _trial_problems(
    connection: Connection, study: StudyRecord, recorded: Sequence[Row[*tuple[Any, ...]]], trials: Sequence[TrialRow]
) -> Iterator[str]:
    chosen = _choices(connection, [row.id for row in recorded])
    for row, found in zip(recorded, trials, strict=True):
        yield from _point_problems(found, row.point_key, chosen[row.id])
        yield from _number_problems(found, study)
        yield from _earlier_problems(found)
        yield from _eligibility_problems(found, study, row.eligible)


def _choices(connection: Connection, ids: Sequence[int]) -> Mapping[int, Choices]:
    query = select(tables.choice).where(in_values(tables.choice.c.trial_id, "ids"))
    found: defaultdict[int, Choices] = defaultdict(set)
    for trial_id, layer, factorization, axis, value in connection.execute(query, {"ids": ids}):
        found[trial_id].add((layer, factorization, axis, value))
    return found


def _point_problems(row: TrialRow, key: str, chosen: Choices) -> Iterator[str]:
    if row.point.key != key:
        yield f"Trial {row.number}: the digest of its point is {row.point.key[:12]}…, the store says {key[:12]}…."
    if set(rows.choices_of(row.model_point)) != chosen:
        yield f"Trial {row.number}: its choices, row by row, are not those of its point."


def _number_problems(row: TrialRow, study: StudyRecord) -> Iterator[str]:
    for name, value in row.measurements.items():
        if not math.isfinite(value):
            yield f"Trial {row.number}: {name} is {value}, which is not a finite number."
    is_measured = row.state in (State.COMPLETE, State.STOPPED)
    if is_measured and len(row.losses) < len(study.objectives):
        missing = [name for name in study.objective_names if name not in row.losses]
        yield f"Trial {row.number} is {row.state}, and yet has no {', '.join(missing)}."


def _earlier_problems(row: TrialRow) -> Iterator[str]:
    for budget, measured in row.earlier.items():
        if budget > row.budget:
            yield f"Trial {row.number} has measurements at budget {budget:g}, above its own of {row.budget:g}."
        for name, value in measured.items():
            if not math.isfinite(value):
                yield f"Trial {row.number}: {name} at budget {budget:g} is {value}, which is not a finite number."


def _eligibility_problems(row: TrialRow, study: StudyRecord, eligible: bool) -> Iterator[str]:
    if eligible != (row.state is State.COMPLETE and row.budget >= study.budget):
        yield (
            f"Trial {row.number} is {row.state} at budget {row.budget:g} of {study.budget:g}; "
            f"the store says that it {'takes' if eligible else 'does not take'} part in the front."
        )
    if row.dominated_by is not None and not eligible:
        yield f"Trial {row.number} takes no part in the front, and yet the store says who dominates it."


def _name(numbers: Mapping[int, int], trial_id: int | None) -> str:
    if trial_id is None:
        return "nobody"
    return f"trial {numbers[trial_id]}" if trial_id in numbers else f"a trial of another study (row {trial_id})"
