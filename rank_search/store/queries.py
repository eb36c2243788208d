"""Questions about the trials of one study: all of them, one of them, and the front, now or in the past."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Integer, Select, and_, bindparam, func, or_, select

from rank_search.basics import nearest
from rank_search.errors import QueryError
from rank_search.pareto import nondominated
from rank_search.point import Bound, Chosen, Condition, Objective
from rank_search.store import names, rows
from rank_search.store.records import StudyRecord, TrialRow
from rank_search.store.sql_in import in_values
from rank_search.store.tables import artifact, claim, measurement, trial

_OF_STUDY: Final = trial.c.study_id == bindparam("study")
_MOMENT: Final = bindparam("moment", type_=Integer)
_TOOK_PART: Final = and_(_OF_STUDY, trial.c.eligible)
# A trial that was dominated when it came has a `dominated_by` below its id, and was never on the front.
_WAS_MEMBER: Final = or_(trial.c.dominated_by.is_(None), trial.c.dominated_by > trial.c.id)
_MEMBERS: Final = select(trial.c.id, trial.c.budget).where(_TOOK_PART, _WAS_MEMBER)
_PRESENT: Final = _MEMBERS.where(trial.c.dominated_by.is_(None))
_PAST: Final = _MEMBERS.where(
    trial.c.id <= _MOMENT, or_(trial.c.dominated_by.is_(None), trial.c.dominated_by > _MOMENT)
)
_ID: Final = select(trial.c.id).where(_OF_STUDY, trial.c.number == bindparam("number"))
_IDS: Final = select(trial.c.id).where(_OF_STUDY, trial.c.id > bindparam("after")).order_by(trial.c.id)

_LOCATIONS: Final = (
    select(artifact.c.location)
    .join(trial, trial.c.id == artifact.c.trial_id)
    .where(_OF_STUDY, in_values(artifact.c.location, "locations"))
)


@dataclass(frozen=True)
class FrontQuery:
    """Which front, and what of it: see `Store.front`."""

    where: Sequence[Condition] = ()
    sort: str | None = None
    limit: int | None = None
    objectives: Sequence[str] | None = None
    as_of: int | None = None

    @property
    def bound_names(self) -> list[str]:
        """Every name in a bound: of a measurement, or of an axis of a layer."""
        return [bound.name for bound in self.where if isinstance(bound, Bound)]

    @property
    def chosen_layers(self) -> list[Chosen]:
        """Every condition on what was chosen for a layer."""
        return [bound for bound in self.where if isinstance(bound, Chosen)]

    @property
    def measurement_names(self) -> list[str]:
        """Every other name; these are of measurements."""
        return [*([] if self.sort is None else [self.sort]), *(self.objectives or ())]


def trials(connection: Connection, study: StudyRecord, after: int) -> list[TrialRow]:
    """Every finished trial whose id is larger than `after`, in the order of recording."""
    ids = connection.scalars(_IDS, {"study": study.id, "after": after}).all()
    return rows.read(connection, study, ids)


def kept_among(connection: Connection, study: StudyRecord, locations: Collection[str]) -> set[str]:
    """Those of the locations at which artifacts of the study's finished trials lie."""
    return set(connection.scalars(_LOCATIONS, {"study": study.id, "locations": locations}))


def id_of(connection: Connection, study: StudyRecord, number: int) -> int | None:
    """The id of the finished trial of that number, if there is one."""
    return connection.scalar(_ID, {"study": study.id, "number": number})


def one_trial(connection: Connection, study: StudyRecord, number: int) -> TrialRow:
    """The finished trial of that number.

    Raises:
        QueryError: there is none.
    """
    trial_id = id_of(connection, study, number)
    if trial_id is None:
        raise QueryError(_no_trial(connection, study, number))
    return rows.read(connection, study, [trial_id])[0]


def front(connection: Connection, study: StudyRecord, query: FrontQuery) -> list[TrialRow]:
    """The members of the front that the query asks for, best first.

    Raises:
        QueryError: a name that was never measured, an unknown trial, a limit below one.
    """
    require_answerable(study, query)
    budgets = _members(connection, study, query)
    everything = rows.at_every_budget(connection, list(budgets))
    measured = rows.at_their_own(budgets, everything)
    kept = meeting(connection, study, query, measured)
    order = _order(study, query)
    kept.sort(key=lambda trial_id: (_badness(order, measured[trial_id]), trial_id))
    return rows.read(connection, study, kept[: query.limit], everything)


def meeting(connection: Connection, study: StudyRecord, query: FrontQuery, measured: rows.Measured) -> list[int]:
    """Those of the measured trials that meet every condition; where a bound's name was not measured, it is not met.

    Raises:
        QueryError: a name that was never measured.
    """
    names.require_known(connection, study, query.bound_names, query.measurement_names, measured)
    bounded = names.with_choices(connection, query.bound_names, measured)
    bounds = [bound for bound in query.where if isinstance(bound, Bound)]
    met = names.meeting(connection, study, query.chosen_layers, list(bounded))
    return [trial_id for trial_id in met if all(bound.holds(bounded[trial_id], study.dense) for bound in bounds)]


def objectives_of(study: StudyRecord, query: FrontQuery) -> tuple[Objective, ...]:
    """What the front of the query is the front of."""
    if query.objectives is None:
        return study.objectives
    return tuple(map(study.objective, dict.fromkeys(query.objectives)))


def present(connection: Connection, study: StudyRecord) -> dict[int, float]:
    """The members of the front, by id, and their budgets."""
    return {row.id: row.budget for row in connection.execute(_PRESENT, {"study": study.id})}


def _members(connection: Connection, study: StudyRecord, query: FrontQuery) -> dict[int, float]:
    moment = None if query.as_of is None else one_trial(connection, study, query.as_of).id
    if query.objectives is not None:
        return _recomputed(connection, study, query.objectives, moment)
    if moment is None:
        return present(connection, study)
    return {row.id: row.budget for row in connection.execute(_PAST, {"study": study.id, "moment": moment})}


def _recomputed(
    connection: Connection, study: StudyRecord, names: Sequence[str], moment: int | None
) -> dict[int, float]:
    """Those that no other trial dominates in these measurements alone."""
    objectives = [study.objective(name) for name in dict.fromkeys(names)]
    query: Select[*tuple[Any, ...]] = select(trial.c.id, trial.c.budget).where(_TOOK_PART).order_by(trial.c.id)
    if moment is not None:
        query = query.where(trial.c.id <= moment)
    for objective in objectives:
        value = measurement.alias()
        of_trial = and_(value.c.trial_id == trial.c.id, value.c.budget == trial.c.budget)
        query = query.add_columns(value.c.value).join(value, and_(of_trial, value.c.name == objective.name))
    found = connection.execute(query, {"study": study.id}).all()
    losses = [
        [each.loss(value) for each, value in zip(objectives, row[2:], strict=True)]  # row: id, budget, the values
        for row in found
    ]
    return {row.id: row.budget for row, kept in zip(found, nondominated(losses), strict=True) if kept}


def require_answerable(study: StudyRecord, query: FrontQuery) -> None:
    """See that a limit is one, and that bounds relative to the dense model have its measurements.

    Raises:
        QueryError: they are not, or have not.
    """
    if query.limit is not None and query.limit < 1:
        raise QueryError(f"The limit is {query.limit}; it must be a whole number of at least 1.")
    if query.objectives is not None and not query.objectives:
        raise QueryError("No objective is given; a front needs at least one. Name one, or leave the option out.")
    for bound in query.where:
        if isinstance(bound, Bound) and bound.of_dense and bound.name not in study.dense:
            raise QueryError(
                f"{str(bound)!r} is relative to the dense model, for which study {study.name!r} has no {bound.name!r}"
                f"{nearest(bound.name, study.dense)}"
            )


def _order(study: StudyRecord, query: FrontQuery) -> Objective:
    first = query.objectives[0] if query.objectives else study.objectives[0].name
    return study.objective(query.sort or first)


def _badness(order: Objective, measured: Mapping[str, float]) -> float:
    return order.loss(measured[order.name]) if order.name in measured else math.inf


def _no_trial(connection: Connection, study: StudyRecord, number: int) -> str:
    running = select(func.count()).where(claim.c.study_id == study.id, claim.c.number == number)
    if connection.scalar(running):
        return f"Trial {number} of study {study.name!r} is still running. Ask again when it has finished."
    bounds = select(func.min(trial.c.number), func.max(trial.c.number)).where(trial.c.study_id == study.id)
    first, last = connection.execute(bounds).one()
    there = "none has finished yet" if first is None else f"there are {first} to {last}"
    return f"Study {study.name!r} has no trial {number}: {there}."
