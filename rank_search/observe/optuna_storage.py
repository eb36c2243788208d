"""A store's studies as an Optuna storage, for optuna-dashboard to look at while they run."""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, final

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rank_search.errors import StoreError
from rank_search.point import State
from rank_search.search import Space, coordinates
from rank_search.store import Claim, Store, StudyRecord, TrialRow

_DIRECTIONS: Final = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}
_STATES: Final = {
    State.COMPLETE: TrialState.COMPLETE,
    State.STOPPED: TrialState.PRUNED,
    State.INFEASIBLE: TrialState.PRUNED,
    State.DIVERGED: TrialState.FAIL,
    State.FAILED: TrialState.FAIL,
}
_IDS_OF_A_STUDY: Final = 2**32

_log = logging.getLogger(__name__)


@final
class Mirror(InMemoryStorage):
    """Every study of a store, with coordinates as parameters and measurements and choices as user attributes.

    A trial is at the place of its number, running or finished. Nothing that is changed here reaches the store.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mirrored: dict[int, _Study] = {}

    def refresh(self, store: Store) -> None:
        """Bring everything up to date, reading only what is new.

        Raises:
            StoreError: the store cannot be read just now; what is known stays.
        """
        known = {study.record.name for study in self._mirrored.values()}
        for summary in store.studies():
            if summary.name not in known:
                self._begin(store.study(summary.name))
        for study in self._mirrored.values():
            study.refresh(store)

    def _begin(self, record: StudyRecord) -> None:
        directions = [_DIRECTIONS[each.direction] for each in record.objectives]
        study = optuna.create_study(storage=self, study_name=record.name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(record.objective_names))
        self._mirrored[study._study_id] = _Study(study._study_id, record)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        self.get_study_name_from_id(study_id)  # KeyError if there is no such study
        mirrored = self._mirrored.get(study_id)
        trials = [each for each in (mirrored.trials if mirrored else ()) if states is None or each.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        study_id, number = divmod(trial_id, _IDS_OF_A_STUDY)
        trials = self._mirrored[study_id].trials
        if number >= len(trials):
            raise KeyError(f"No trial with trial_id {trial_id} exists.")
        return trials[number]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return BaseStorage.get_best_trial(self, study_id)


@final
class _Study:
    """One study in the mirror."""

    def __init__(self, study_id: int, record: StudyRecord) -> None:
        self.record = record
        self.trials: Sequence[FrozenTrial] = ()
        self._first_id = study_id * _IDS_OF_A_STUDY
        self._distributions = coordinates(Space.from_json(record.space["coordinates"]))
        self._finished: dict[int, FrozenTrial] = {}
        self._budgets: dict[int, float] = {}
        self._members: set[int] = set()
        self._last_id = 0

    def refresh(self, store: Store) -> None:
        """Read what is new. Members of the front are read again: they may have been measured on the test data."""
        claims = store.claims(self.record)  # before the trials: one that finishes in between is not missed
        rows = store.trials(self.record, after=self._last_id)
        front = store.front(self.record)
        members = {row.number for row in front}
        for row in (*rows, *front):
            self._finished[row.number] = self._mirrored(row, row.number in members)
            self._budgets[row.number] = row.budget
        for number in self._members - members:
            self._finished[number] = _off_the_front(self._finished[number])
        self._members = members
        self._last_id = max((row.id for row in rows), default=self._last_id)
        self.trials = self._in_order(claims)

    def _in_order(self, claims: Sequence[Claim]) -> Sequence[FrozenTrial]:
        """Every trial at the place of its number; a promoted one is running again until its row is replaced."""
        running = {
            claim.number: self._running(claim)
            for claim in claims
            if claim.number not in self._budgets or self._budgets[claim.number] < claim.budget
        }
        found = {**self._finished, **running}
        return [found.get(number) or self._unknown(number) for number in range(max(found, default=-1) + 1)]

    def _mirrored(self, row: TrialRow, on_front: bool) -> FrozenTrial:
        complete = row.state is State.COMPLETE
        attributes = {
            "trial": row.number,
            "state": str(row.state),
            "reason": row.reason,
            "label": row.sampler.get("label", ""),
            "on_front": on_front,
            "budget": row.budget,
            "worker": row.worker,
            **({"earlier": _as_json(row.earlier)} if row.earlier else {}),
            **row.measurements,
            **row.model_point.to_json(),
            "artifacts": {each.kind: each.location for each in row.artifacts},
        }
        trial = self._trial(row.number, _STATES[row.state], row.sampler, attributes, row.started)
        trial.datetime_complete = _local(row.finished)
        if complete:
            trial.values = [row.measurements[name] for name in self.record.objective_names]
        return trial

    def _running(self, claim: Claim) -> FrozenTrial:
        state = TrialState.RUNNING if claim.worker else TrialState.WAITING  # given up by a driver that ended
        attributes = {
            "trial": claim.number,
            "state": state.name.lower(),
            "label": claim.sampler.get("label", ""),
            "budget": claim.budget,
            "worker": claim.worker,
            **claim.point.to_json(),
        }
        return self._trial(claim.number, state, claim.sampler, attributes, claim.started)

    def _unknown(self, number: int) -> FrozenTrial:
        """A trial that was claimed while the others were read."""
        return self._trial(number, TrialState.WAITING, {}, {})

    def _trial(
        self,
        number: int,
        state: TrialState,
        sampler: Mapping[str, Any],
        attributes: dict[str, Any],
        started: datetime | None = None,
    ) -> FrozenTrial:
        given = sampler.get("coordinates", {})
        known: dict[str, BaseDistribution] = {
            name: distribution for name, distribution in self._distributions.items() if name in given
        }
        return FrozenTrial(
            number=number,
            trial_id=self._first_id + number,
            state=state,
            value=None,
            datetime_start=_local(started),
            datetime_complete=None,
            params={name: given[name] for name in known},
            distributions=known,
            user_attrs=attributes,
            system_attrs={},
            intermediate_values={},
        )


def mirrored(store: Store) -> Mirror:
    """Every study of the store as it is now."""
    mirror = Mirror()
    mirror.refresh(store)
    return mirror


@contextmanager
def following(store: Store, every: timedelta) -> Iterator[Mirror]:
    """A mirror that is kept up to date; it stays as it is while the store is away."""
    mirror, stop = mirrored(store), threading.Event()
    thread = threading.Thread(target=_keep_up, args=(mirror, store, every, stop), daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        stop.set()
        thread.join()


def _keep_up(mirror: Mirror, store: Store, every: timedelta, stop: threading.Event) -> None:
    away = False
    while not stop.wait(every.total_seconds()):
        try:
            mirror.refresh(store)
            away = False
        except StoreError as error:
            if not away:
                _log.warning("The dashboard stands still until the store is back: %s", error)
            away = True


def _off_the_front(trial: FrozenTrial) -> FrozenTrial:
    """A copy: whoever is reading the other one is not disturbed."""
    changed = copy.copy(trial)
    changed.user_attrs = {**trial.user_attrs, "on_front": False}
    return changed


def _as_json(earlier: Mapping[float, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {f"{budget:g}": dict(measured) for budget, measured in sorted(earlier.items())}


def _local(moment: datetime | None) -> datetime | None:
    """Optuna's times are local and do not say so."""
    return None if moment is None else moment.astimezone().replace(tzinfo=None)
