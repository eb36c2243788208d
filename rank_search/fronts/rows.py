"""Reading trials: from rows of several tables to `TrialRow`s, in a few queries whatever their number.

Queries that run for every trial are constants, here and in the other modules: SQLAlchemy takes longer to put one
together than SQLite takes to answer it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Text, and_, bindparam, cast, select

from rank_search.fronts.records import StudyRecord, TrialRow
from rank_search.fronts.tables import artifact, measurement, trial
from rank_search.point import Artifact, Point, State

Measured = dict[int, dict[str, float]]
"""Measurements by trial id and name."""

Earlier = dict[float, dict[str, float]]
"""Measurements by budget and name."""

# SQLite takes at most 32,766 parameters in one statement.
_BATCH: Final = 10_000

AT_ITS_BUDGET: Final = and_(measurement.c.trial_id == trial.c.id, measurement.c.budget == trial.c.budget)
MEASUREMENTS: Final = select(trial.c.id, measurement.c.name, measurement.c.value).join(measurement, AT_ITS_BUDGET)
_MEASUREMENTS_OF_IDS: Final = MEASUREMENTS.where(trial.c.id.in_(bindparam("ids", expanding=True)))
_EARLIER: Final = (
    select(measurement.c.trial_id, measurement.c.budget, measurement.c.name, measurement.c.value)
    .join(trial, and_(measurement.c.trial_id == trial.c.id, measurement.c.budget != trial.c.budget))
    .where(trial.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(measurement.c.trial_id, measurement.c.budget)
)

_ARTIFACTS: Final = (
    select(artifact.c.trial_id, artifact.c.kind, artifact.c.location, artifact.c.sha256, artifact.c.bytes)
    .where(artifact.c.trial_id.in_(bindparam("ids", expanding=True)))
    .order_by(artifact.c.trial_id, artifact.c.kind, artifact.c.location)
)

_dominator: Final = trial.alias("dominator")
_TRIALS: Final[Select[*tuple[Any, ...]]] = (
    select(
        trial.c.id,
        trial.c.number,
        trial.c.state,
        trial.c.budget,
        trial.c.rng_seed,
        trial.c.worker,
        trial.c.attempt,
        trial.c.started,
        trial.c.finished,
        trial.c.reason,
        trial.c.sampler,
        cast(trial.c.point, Text),
        _dominator.c.number,
    )
    .outerjoin(_dominator, _dominator.c.id == trial.c.dominated_by)
    .where(trial.c.id.in_(bindparam("ids", expanding=True)))
)


def read(
    connection: Connection, study: StudyRecord, ids: Sequence[int], known: Measured | None = None
) -> list[TrialRow]:
    """The trials of the study with these ids, in this order; `known` saves reading their measurements again."""
    found: dict[int, TrialRow] = {}
    for some in batches(ids):
        numbers = measurements(connection, some) if known is None else known
        files, earlier = _artifacts(connection, some), _earlier(connection, some)
        for row in connection.execute(_TRIALS, {"ids": some}).all():
            measured = numbers.get(row[0], {})
            found[row[0]] = _trial(row, study, measured, earlier.get(row[0], {}), files.get(row[0], ()))
    return [found[trial_id] for trial_id in ids]


def batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The ids in slices that fit into one statement."""
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def measurements(connection: Connection, ids: Sequence[int]) -> Measured:
    """The measurements of these trials at their own budgets."""
    found: Measured = {}
    for some in batches(ids):
        found |= by_trial(connection.execute(_MEASUREMENTS_OF_IDS, {"ids": some}).all())
    return found


def by_trial(found: Iterable[Row[int, str, float]]) -> Measured:
    """Rows of `MEASUREMENTS`, gathered."""
    gathered: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for trial_id, name, value in found:
        gathered[trial_id][name] = value
    return dict(gathered)


def choices_of(point: Point) -> Iterator[tuple[str, str, str, float | None]]:
    """Layer, factorization, axis and value of each choice; one without axes is one row, with no value."""
    for layer, choice in point.layers.items():
        if not choice.values:
            yield layer, choice.factorization, "", None
        for axis, value in choice.values.items():
            yield layer, choice.factorization, axis, value


def _earlier(connection: Connection, ids: Sequence[int]) -> Mapping[int, Earlier]:
    found: defaultdict[int, Earlier] = defaultdict(dict)
    for trial_id, budget, name, value in connection.execute(_EARLIER, {"ids": ids}).all():
        found[trial_id].setdefault(budget, {})[name] = value
    return found


def _artifacts(connection: Connection, ids: Sequence[int]) -> Mapping[int, tuple[Artifact, ...]]:
    found: defaultdict[int, tuple[Artifact, ...]] = defaultdict(tuple)
    for trial_id, kind, location, sha256, length in connection.execute(_ARTIFACTS, {"ids": ids}).all():
        found[trial_id] += (Artifact(kind, location, sha256, length),)
    return found


def _trial(
    row: Row[*tuple[Any, ...]],
    study: StudyRecord,
    measured: Mapping[str, float],
    earlier: Earlier,
    artifacts: tuple[Artifact, ...],
) -> TrialRow:
    """`row`: one of `_TRIALS`."""
    trial_id, number, state, budget, rng_seed, worker, attempt, started, finished, reason, sampler, point, by = row
    return TrialRow(
        id=trial_id,
        number=number,
        state=State(state),
        measurements=measured,
        losses=study.losses(measured),
        budget=budget,
        rng_seed=rng_seed,
        worker=worker,
        attempt=attempt,
        started=started,
        finished=finished,
        reason=reason,
        dominated_by=by,
        artifacts=artifacts,
        earlier=earlier,
        point_json=point,
        sampler_json=sampler,
    )
