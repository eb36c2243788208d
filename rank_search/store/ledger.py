"""Recording: a claim becomes a trial with its place on the front, in one transaction.

A trial that was promoted gets a new row in place of its old one: its number stays, its id is a new, larger one, so that
ids grow in the order of recording, and its measurements at smaller budgets stay with it. The cuts of its model become
rows of their own right after it, in the same transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from rank_search.errors import StoreError
from rank_search.pareto import dominates
from rank_search.point import Artifact, Cut, Execution, Outcome, Point, State
from rank_search.store import queries, rows, tables
from rank_search.store.claims import is_taken, lock, next_number
from rank_search.store.records import LAYER_COSTS, Claim, StudyRecord, TrialRow
from rank_search.store.sql_in import in_values
from rank_search.store.studies import finite
from rank_search.store.tables import claim, measurement, trial

_CLAIMED: Final = select(claim).where(claim.c.study_id == bindparam("study"), claim.c.number == bindparam("of"))
_DROP_CLAIM: Final = delete(claim).where(claim.c.study_id == bindparam("study"), claim.c.number == bindparam("of"))
_INSERT_TRIAL: Final = insert(trial).returning(trial.c.id)
_STANDING: Final = select(trial.c.id, trial.c.budget, trial.c.attempt, trial.c.worker, trial.c.finished).where(
    trial.c.study_id == bindparam("study"), trial.c.number == bindparam("of")
)
# The old row is renamed, and goes only after the new one has come: no id is given twice, on SQLite neither.
_SET_ASIDE: Final = (
    update(trial).where(trial.c.id == bindparam("old")).values(number=-1 - trial.c.number, point_key="set aside")
)
_HAND_ON: Final = (
    update(measurement).where(measurement.c.trial_id == bindparam("old")).values(trial_id=bindparam("new"))
)
_REMOVE: Final = [
    *(delete(each).where(each.c.trial_id == bindparam("old")) for each in (tables.choice, tables.artifact)),
    delete(trial).where(trial.c.id == bindparam("old")),
]
_INSERT_CHOICES: Final = insert(tables.choice)
_INSERT_MEASUREMENTS: Final = insert(measurement)
_INSERT_ARTIFACTS: Final = insert(tables.artifact)
_SET_DOMINATED: Final = update(trial).where(in_values(trial.c.id, "beaten")).values(dominated_by=bindparam("dominator"))


@dataclass(frozen=True)
class _Result:
    """What becomes a row: its outcome at the point, and the other columns; `old` is the row whose place it takes."""

    point: Point
    outcome: Outcome
    values: Mapping[str, Any]
    old: int | None = None


Losses = dict[int, tuple[float, ...]]
"""The losses of trials that were members of a front, by id. They never change, so they need to be read only once."""


def record(
    connection: Connection, study: StudyRecord, held: Claim, outcome: Outcome, ran: Execution, known: Losses
) -> bool:
    """Turn the claim into a trial, unless that has been done already; `known` is filled with what has been read.

    Returns whether the trial is this outcome: not another worker's, who was faster.

    Raises:
        StoreError: a complete or stopped trial lacks an objective, or there is no such claim.
    """
    for each in (outcome, *(cut.outcome for cut in outcome.row)):
        _require_objectives(study, held, each)
    lock(connection, study)
    before = connection.execute(_STANDING, {"study": study.id, "of": held.number}).one_or_none()
    if before is not None and before.budget >= held.budget:
        mine = (held.attempt, ran.worker or held.worker, ran.finished)
        return (before.attempt, before.worker, before.finished) == mine
    row = _claimed(connection, study, held)
    trained = _Result(held.point, outcome, _values(row, held, outcome, ran), None if before is None else before.id)
    _enter(connection, study, trained, known)
    connection.execute(_DROP_CLAIM, {"study": study.id, "of": held.number})
    for cut in outcome.row:
        if not is_taken(connection, study, cut.point):
            _enter(connection, study, _of_cut(trained, cut, next_number(connection, study)), known)
    return True


def _enter(connection: Connection, study: StudyRecord, result: _Result, known: Losses) -> None:
    """Write a result, judged against the front."""
    outcome, budget = result.outcome, result.values["budget"]
    eligible, measured = outcome.state is State.COMPLETE and budget >= study.budget, finite(outcome.measurements)
    dominator, beaten = _judge(connection, study, measured, known) if eligible else (None, [])
    values = {**result.values, "eligible": eligible, "dominated_by": dominator}
    trial_id = _write(connection, values, outcome.settled or result.point, result.old)
    _insert_measurements(connection, trial_id, budget, measured)
    _insert_artifacts(connection, trial_id, outcome.artifacts)
    _set_dominated(connection, beaten, trial_id)


def _of_cut(trained: _Result, cut: Cut, number: int) -> _Result:
    """The row of a cut: made when and where its model was trained, whose seconds it does not count again."""
    of = trained.values["number"]
    costs = {name: dict(each) for name, each in cut.layer_costs.items()}
    sampler = {"label": f"cut of trial {of}", "coordinates": {}, LAYER_COSTS: costs}
    own = {
        "number": number,
        "point": cut.point.to_json(),
        "point_key": cut.point.key,
        "state": cut.outcome.state.value,
        "reason": _storable(cut.outcome.reason),
        "started": trained.values["finished"],
        "sampler": json.dumps(sampler),
        "settled": _settled(cut.outcome),
        "cut_of": of,
    }
    return _Result(cut.point, cut.outcome, {**trained.values, **own})


def _write(connection: Connection, values: Mapping[str, Any], point: Point, old: int | None) -> int:
    """The trial's row and its choices: new ones, or in place of the old row, whose measurements are handed on."""
    if old is not None:
        connection.execute(_SET_ASIDE, {"old": old})
    trial_id = _insert_trial(connection, values)
    if old is not None:
        _replace(connection, old, trial_id)
    _insert_choices(connection, trial_id, point)
    return trial_id


def _replace(connection: Connection, old: int, new: int) -> None:
    connection.execute(_HAND_ON, {"old": old, "new": new})
    for removing in _REMOVE:
        connection.execute(removing, {"old": old})


def amend(connection: Connection, study: StudyRecord, number: int, measurements: Mapping[str, float]) -> TrialRow:
    """Add measurements to a finished trial; returns it as it is then.

    Raises:
        StoreError: the trial already has another value under one of the names.
        QueryError: there is no such trial.
    """
    lock(connection, study)
    row, measured = queries.one_trial(connection, study, number), finite(measurements)
    there = row.measurements
    for name, value in measured.items():
        if there.get(name, value) != value:
            raise StoreError(
                f"Trial {row.number} of study {study.name!r} already has {name} = {there[name]!r}; a measurement is "
                f"never overwritten, here by {value!r}. Store it under another name."
            )
    new = {name: value for name, value in measured.items() if name not in there}
    _insert_measurements(connection, row.id, row.budget, new)
    return queries.one_trial(connection, study, number)


def forget_artifacts(connection: Connection, study: StudyRecord, number: int) -> tuple[Artifact, ...]:
    """Remove the artifact rows of a trial, and return them.

    Raises:
        StoreError: the trial is on the front.
        QueryError: there is no such trial.
    """
    lock(connection, study)
    row = queries.one_trial(connection, study, number)
    still = select(trial.c.id).where(trial.c.id == row.id, trial.c.eligible, trial.c.dominated_by.is_(None))
    if connection.scalar(still) is not None:
        raise StoreError(
            f"Trial {row.number} of study {study.name!r} is on the front, whose members keep their artifacts. "
            "Drop those of dominated trials only."
        )
    connection.execute(delete(tables.artifact).where(tables.artifact.c.trial_id == row.id))
    return row.artifacts


def _require_objectives(study: StudyRecord, held: Claim, outcome: Outcome) -> None:
    if outcome.state not in (State.COMPLETE, State.STOPPED):
        return
    measured = finite(outcome.measurements)
    for name in study.objective_names:
        if name not in measured:
            found = outcome.measurements.get(name, "nothing")
            raise StoreError(
                f"Trial {held.number} of study {study.name!r} has {found} for {name!r}; a {outcome.state} trial has a "
                "finite number for every objective. Record it as diverged or failed, with the reason."
            )


def _claimed(connection: Connection, study: StudyRecord, held: Claim) -> Row[*tuple[Any, ...]]:
    """The claim's row, which another worker may hold by now: the first result is the one that counts."""
    row = connection.execute(_CLAIMED, {"study": study.id, "of": held.number}).one_or_none()
    if row is None or row.point_key != held.point.key:
        raise StoreError(
            f"Study {study.name!r} has no claim {held.number} for this point; only a claimed point can be recorded. "
            "Claim it first."
        )
    return row


def _values(row: Row[*tuple[Any, ...]], held: Claim, outcome: Outcome, ran: Execution) -> dict[str, Any]:
    """What the claim's row and the outcome say of the trial."""
    return {
        "study_id": row.study_id,
        "number": row.number,
        "point": row.point,
        "point_key": row.point_key,
        "state": outcome.state.value,
        "budget": held.budget,
        "rng_seed": ran.rng_seed,
        "worker": ran.worker or held.worker,
        "attempt": held.attempt,
        "started": ran.started,
        "finished": ran.finished,
        "reason": _storable(outcome.reason),
        "sampler": row.sampler,
        "settled": _settled(outcome),
        "cut_of": None,
    }


def _settled(outcome: Outcome) -> dict[str, Any] | None:
    """What the model has become, and what its layers cost there."""
    if outcome.settled is None:
        return None
    costs = {name: dict(each) for name, each in outcome.settled_costs.items()}
    return {**outcome.settled.to_json(), LAYER_COSTS: costs}


def _insert_trial(connection: Connection, values: Mapping[str, Any]) -> int:
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


def _judge(
    connection: Connection, study: StudyRecord, measured: Mapping[str, float], known: Losses
) -> tuple[int | None, list[int]]:
    """Who dominates the newcomer, the first recorded of them; if nobody does, whom it dominates."""
    losses, front = tuple(study.losses(measured).values()), _losses_of_members(connection, study, known)
    dominator = min((member for member, others in front.items() if dominates(others, losses)), default=None)
    beaten = [] if dominator is not None else [member for member, others in front.items() if dominates(losses, others)]
    return dominator, beaten


def _losses_of_members(connection: Connection, study: StudyRecord, known: Losses) -> Losses:
    budgets = queries.present(connection, study)
    new = {member: budget for member, budget in budgets.items() if member not in known}
    if new:
        everything = rows.at_every_budget(connection, list(new), study.objective_names)
        measured = rows.at_their_own(new, everything)
        known.update({member: tuple(study.losses(each).values()) for member, each in measured.items()})
    return {member: known[member] for member in budgets}


def _set_dominated(connection: Connection, beaten: list[int], dominator: int) -> None:
    if beaten:
        connection.execute(_SET_DOMINATED, {"beaten": beaten, "dominator": dominator})


def _storable(text: str) -> str:
    """The text without what a database refuses: zero characters and half surrogates."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
