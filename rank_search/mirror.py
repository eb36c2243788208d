"""A store's studies in an Optuna storage, for optuna-dashboard to look at."""

from __future__ import annotations

import warnings

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from rank_search.fronts import Store, StudyRecord, TrialRow
from rank_search.point import State
from rank_search.search import Space, coordinates

_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}
_STATES = {
    State.COMPLETE: TrialState.COMPLETE,
    State.INFEASIBLE: TrialState.PRUNED,
    State.DIVERGED: TrialState.FAIL,
    State.FAILED: TrialState.FAIL,
}


def mirrored(store: Store) -> InMemoryStorage:
    """Every study of the store, with coordinates as parameters and measurements and choices as user attributes."""
    storage = InMemoryStorage()
    for summary in store.studies():
        record = store.study(summary.name)
        study = optuna.create_study(
            storage=storage,
            study_name=record.name,
            directions=[_DIRECTIONS[each.direction] for each in record.objectives],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(record.objective_names))
        distributions = coordinates(Space.from_json(record.space["coordinates"]))
        study.add_trials(_mirrored(record, row, distributions) for row in store.trials(record))
    return storage


def _mirrored(record: StudyRecord, row: TrialRow, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    known = {name: value for name, value in row.sampler["coordinates"].items() if name in distributions}
    values = [row.measurements[name] for name in record.objective_names] if row.state is State.COMPLETE else None
    return create_trial(
        state=_STATES[row.state],
        params=known,
        distributions={name: distributions[name] for name in known},
        values=values,
        user_attrs={
            "trial": row.number,
            "state": str(row.state),
            "reason": row.reason,
            "label": row.sampler["label"],
            "on_front": row.state is State.COMPLETE and row.dominated_by is None,
            **row.measurements,
            **row.point.to_json(),
        },
    )
