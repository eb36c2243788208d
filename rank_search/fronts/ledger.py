"""Recording: a claim becomes a trial with its place on the front, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from rank_search.errors import StoreError
from rank_search.fronts import queries, rows, tables
from rank_search.fronts.claims import lock
from rank_search.fronts.dominance import dominates
from rank_search.fronts.records import Claim, StudyRecord, TrialRow
from rank_search.fronts.studies import finite
from rank_search.fronts.tables import claim, measurement, trial
from rank_search.point import Artifact, Outcome, Point, State

_CLAIMED: Final = select(claim).where(claim.c.study_id == bindparam("study"), claim.c.number == bindparam("of"))
_DROP_CLAIM: Final = delete(claim).where(claim.c.study_id == bindparam("study"), claim.c.number == bindparam("of"))
_OBJECTIVES: Final = queries.PRESENT.where(measurement.c.name.in_(bindparam("names", expanding=True)))
_INSERT_TRIAL: Final = insert(trial).returning(trial.c.id)
_INSERT_CHOICES: Final = insert(tables.choice)
_INSERT_MEASUREMENTS: Final = insert(measurement)
_INSERT_ARTIFACTS: Final = insert(tables.artifact)
_SET_DOMINATED: Final = (
    update(trial).where(trial.c.id.in_(bindparam("beaten", expanding=True))).values(dominated_by=bindparam("dominator"))
)


@dataclass(frozen=True)
class Ending:
    """How a claim ended: see `Store.record`."""

    outcome: Outcome
    budget: float
    rng_seed: int
    started: datetime
    finished: datetime


def record(connection: Connection, study: StudyRecord, held: Claim, ending: Ending) -> None:
    """Turn the claim into a trial, unless that has been done already.

    Raises:
        StoreError: a complete trial lacks an objective, or there is no such claim.
    """
    _require_objectives(study, held, ending.outcome)
    lock(connection, study)
    if queries.id_of(connection, study, held.number) is not None:
        return
    row = _claimed(connection, study, held)
    measured = finite(ending.outcome.measurements)
    eligible = ending.outcome.state is State.COMPLETE and ending.budget >= study.budget
    trial_id = _insert_trial(connection, row, held, ending, eligible)
    _insert_choices(connection, trial_id, held.point)
    _insert_measurements(connection, trial_id, ending.budget, measured)
    _insert_artifacts(connection, trial_id, ending.outcome.artifacts)
    if eligible:
        _judge(connection, study, trial_id, measured)
    connection.execute(_DROP_CLAIM, {"study": study.id, "of": held.number})


def amend(connection: Connection, study: StudyRecord, row: TrialRow, measured: Mapping[str, float]) -> None:
    """Add measurements to a finished trial.

    Raises:
        StoreError: the trial already has another value under one of the names.
    """
    lock(connection, study)
    measured = finite(measured)
    there = rows.measurements(connection, [row.id]).get(row.id, {})
    for name, value in measured.items():
        if there.get(name, value) != value:
            raise StoreError(
                f"A measurement is never overwritten: trial {row.number} of study {study.name!r} has "
                f"{name} = {there[name]!r}, and {value!r} was to be added. Store it under another name."
            )
    new = {name: value for name, value in measured.items() if name not in there}
    _insert_measurements(connection, row.id, row.budget, new)


def forget_artifacts(connection: Connection, study: StudyRecord, row: TrialRow) -> None:
    """Remove the artifact rows of a trial.

    Raises:
        StoreError: the trial is on the front.
    """
    lock(connection, study)
    still = select(trial.c.id).where(trial.c.id == row.id, trial.c.eligible, trial.c.dominated_by.is_(None))
    if connection.scalar(still) is not None:
        raise StoreError(
            f"The artifacts of a front's members are kept; trial {row.number} of study {study.name!r} is "
            "on the front. Drop those of dominated trials only."
        )
    connection.execute(delete(tables.artifact).where(tables.artifact.c.trial_id == row.id))


def _require_objectives(study: StudyRecord, held: Claim, outcome: Outcome) -> None:
    if outcome.state is not State.COMPLETE:
        return
    measured = finite(outcome.measurements)
    for name in study.objective_names:
        if name not in measured:
            found = outcome.measurements.get(name, "nothing")
            raise StoreError(
                f"A complete trial has a finite number for every objective; trial {held.number} of study "
                f"{study.name!r} has {found} for {name!r}. Record it as diverged or failed, with the reason."
            )


def _claimed(connection: Connection, study: StudyRecord, held: Claim) -> Row[*tuple[Any, ...]]:
    """The claim's row, which another worker may hold by now: the first result is the one that counts."""
    row = connection.execute(_CLAIMED, {"study": study.id, "of": held.number}).one_or_none()
    if row is None or row.point_key != held.point.key:
        raise StoreError(
            f"Only a claimed point can be recorded; study {study.name!r} has no claim {held.number} for this "
            "point. Claim it first."
        )
    return row


def _insert_trial(
    connection: Connection, row: Row[*tuple[Any, ...]], held: Claim, ending: Ending, eligible: bool
) -> int:
    values = {
        "study_id": row.study_id,
        "number": row.number,
        "point": row.point,
        "point_key": row.point_key,
        "state": ending.outcome.state.value,
        "budget": ending.budget,
        "rng_seed": ending.rng_seed,
        "worker": held.worker,
        "attempt": held.attempt,
        "started": ending.started,
        "finished": ending.finished,
        "reason": _storable(ending.outcome.reason),
        "sampler": row.sampler,
        "eligible": eligible,
    }
    return connection.execute(_INSERT_TRIAL, values).scalar_one()


def _insert_choices(connection: Connection, trial_id: int, point: Point) -> None:
    found = [
        {"trial_id": trial_id, "layer": layer, "factorization": factorization, "axis": axis, "value": value}
        for layer, factorization, axis, value in rows.choices_of(point)
    ]
    if found:
        connection.execute(_INSERT_CHOICES, found)


def _insert_measurements(connection: Connection, trial_id: int, budget: float, measured: Mapping[str, float]) -> None:
    found = [{"trial_id": trial_id, "budget": budget, "name": name, "value": value} for name, value in measured.items()]
    if found:
        connection.execute(_INSERT_MEASUREMENTS, found)


def _insert_artifacts(connection: Connection, trial_id: int, artifacts: tuple[Artifact, ...]) -> None:
    if artifacts:
        connection.execute(_INSERT_ARTIFACTS, [{"trial_id": trial_id, **vars(each)} for each in artifacts])


def _judge(connection: Connection, study: StudyRecord, newcomer: int, measured: Mapping[str, float]) -> None:
    """Note who dominates the newcomer, the first recorded of them; if nobody does, whom it dominates."""
    losses = tuple(study.losses(measured).values())
    members = connection.execute(_OBJECTIVES, {"study": study.id, "names": study.objective_names}).all()
    front = {member: tuple(study.losses(each).values()) for member, each in rows.by_trial(members).items()}
    dominator = min((member for member, others in front.items() if dominates(others, losses)), default=None)
    if dominator is not None:
        _set_dominated(connection, [newcomer], dominator)
    else:
        beaten = [member for member, others in front.items() if dominates(losses, others)]
        _set_dominated(connection, beaten, newcomer)


def _set_dominated(connection: Connection, beaten: list[int], dominator: int) -> None:
    for some in rows.batches(beaten):
        connection.execute(_SET_DOMINATED, {"beaten": some, "dominator": dominator})


def _storable(text: str) -> str:
    """The text without what a database refuses: zero characters and half surrogates."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
