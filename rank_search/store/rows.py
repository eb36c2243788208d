"""Reading trials: from rows of several tables to `TrialRow`s, in a few queries for any number of them.

Queries that run for every trial are constants, here and in the other modules: SQLAlchemy takes longer to put one
together than SQLite takes to answer it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Text, cast, select

from rank_search.point import Artifact, Point, State
from rank_search.store.records import StudyRecord, TrialRow
from rank_search.store.sql_in import in_values
from rank_search.store.tables import artifact, measurement, trial

Measured = dict[int, dict[str, float]]
"""Measurements by trial id and name."""

AtEveryBudget = Mapping[int, Mapping[float, Mapping[str, float]]]
"""Measurements by trial id, budget and name."""

_BATCH: Final = 10_000

# Nothing is joined here: PostgreSQL cannot foresee how few trials a front has, and would read every measurement.
_MEASURED: Final = select(measurement.c.trial_id, measurement.c.budget, measurement.c.name, measurement.c.value).where(
    in_values(measurement.c.trial_id, "ids")
)
_MEASURED_OF_THAT_NAME: Final = _MEASURED.where(in_values(measurement.c.name, "names"))

_ARTIFACTS: Final = (
    select(artifact.c.trial_id, artifact.c.kind, artifact.c.location, artifact.c.sha256, artifact.c.bytes)
    .where(in_values(artifact.c.trial_id, "ids"))
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
        trial.c.cut_of,
        trial.c.sampler,
        cast(trial.c.point, Text),
        cast(trial.c.settled, Text),
        _dominator.c.number,
    )
    .outerjoin(_dominator, _dominator.c.id == trial.c.dominated_by)
    .where(in_values(trial.c.id, "ids"))
)


def read(
    connection: Connection, study: StudyRecord, ids: Sequence[int], known: AtEveryBudget | None = None
) -> list[TrialRow]:
    """The trials of the study with these ids, in this order; `known` saves reading their measurements again."""
    found: dict[int, TrialRow] = {}
    for some in batches(ids):
        measured = at_every_budget(connection, some) if known is None else known
        files = _artifacts(connection, some)
        for row in connection.execute(_TRIALS, {"ids": some}).all():
            found[row[0]] = _trial(row, study, measured.get(row[0], {}), files.get(row[0], ()))
    return [found[trial_id] for trial_id in ids]


def batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The ids in slices, so that no answer is very large."""
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def at_every_budget(connection: Connection, ids: Sequence[int], names: Sequence[str] = ()) -> AtEveryBudget:
    """The measurements of these trials, or only those of these names."""
    found: defaultdict[int, dict[float, dict[str, float]]] = defaultdict(dict)
    query = _MEASURED_OF_THAT_NAME if names else _MEASURED
    for some in batches(ids):
        for trial_id, budget, name, value in connection.execute(query, {"ids": some, "names": names}).all():
            found[trial_id].setdefault(budget, {})[name] = value
    return found


def at_their_own(budgets: Mapping[int, float], measured: AtEveryBudget) -> Measured:
    """The measurements of each trial at its own budget; `budgets`: by trial id."""
    return {trial_id: dict(measured.get(trial_id, {}).get(budget, {})) for trial_id, budget in budgets.items()}


def choices_of(point: Point) -> Iterator[tuple[str, str, str, float | None]]:
    """Layer, factorization, axis and value of each choice; one without axes is one row, with no value."""
    for layer, choice in point.layers.items():
        if not choice.values:
            yield layer, choice.factorization, "", None
        for axis, value in choice.values.items():
            yield layer, choice.factorization, axis, value


def _artifacts(connection: Connection, ids: Sequence[int]) -> Mapping[int, tuple[Artifact, ...]]:
    found: defaultdict[int, tuple[Artifact, ...]] = defaultdict(tuple)
    for trial_id, kind, location, sha256, length in connection.execute(_ARTIFACTS, {"ids": ids}).all():
        found[trial_id] += (Artifact(kind, location, sha256, length),)
    return found


def _trial(
    row: Row[*tuple[Any, ...]],
    study: StudyRecord,
    measured: Mapping[float, Mapping[str, float]],
    artifacts: tuple[Artifact, ...],
) -> TrialRow:
    """`row`: one of `_TRIALS`; `measured`: at every budget."""
    trial_id, number, state, budget, rng_seed, worker, attempt, started, finished, reason, *rest = row
    cut_of, sampler, point, became, by = rest
    own = measured.get(budget, {})
    return TrialRow(
        id=trial_id,
        number=number,
        state=State(state),
        measurements=own,
        losses=study.losses(own),
        budget=budget,
        rng_seed=rng_seed,
        worker=worker,
        attempt=attempt,
        started=started,
        finished=finished,
        reason=reason,
        dominated_by=by,
        artifacts=artifacts,
        earlier={rung: measured[rung] for rung in sorted(measured) if rung != budget},
        point_json=point,
        settled_json=became,
        sampler_json=sampler,
        cut_of=cut_of,
    )
