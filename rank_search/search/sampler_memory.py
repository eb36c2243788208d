"""What a sampler knows: an Optuna study in memory, of which only JSON has to be kept to build it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Self, final

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from rank_search.search.coordinates import Coordinates
from rank_search.search.results import Told
from rank_search.search.samplers import Distributions

_PARENTS: Final = ":parent:"  # marks the study attributes in which genetic samplers keep a generation's parents
_CONSTRAINT: Final = "constraints:"  # begins the trial attributes in which Optuna keeps violations
_REDUNDANT: Final = ("fixed_params", "relative_params", "constraints")  # attributes that follow from the rest


@final
class _Shared(dict[str, BaseDistribution]):
    """Distributions that all trials have in common: a copy of a trial keeps them as they are."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


@final
class _Amendable(InMemoryStorage):
    """Trials that may be told again after they have ended: one that was stopped may go on."""

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        """All are."""


class SamplerMemory:
    """An Optuna study, its trials known by the keys of their points.

    A trial keeps its place however often it is told: samplers see the newest result where the first one was.

    Genetic samplers keep two things beside the trials: the generation of each (an attribute of the trial) and the
    parents of each generation (an attribute of the study). `attributes` and `new_parents` hand these out, `add`,
    `reopen` and `set_parents` take them back.
    """

    def __init__(self, distributions: Distributions, objectives: int) -> None:
        self._distributions = _Shared(distributions)
        self._storage = _Amendable()
        with _quiet():
            self._study = optuna.create_study(storage=self._storage, directions=["minimize"] * objectives)
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._ids: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._known_parents: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._ids

    def draw(self, sampler: BaseSampler) -> Trial:
        """A trial with the coordinates that a sampler wants."""
        self._study.sampler = sampler
        return self._study.ask(self._distributions)

    def open(self, coordinates: Coordinates) -> Trial:
        """A trial with given coordinates."""
        self._study.enqueue_trial(dict(coordinates))
        return self._study.ask(self._distributions)

    def join_generation(self, trial: Trial, sampler: BaseSampler) -> None:
        """Count a trial that a genetic sampler did not draw into its present generation."""
        if isinstance(sampler, BaseGASampler):
            sampler.get_trial_generation(self._study, self._storage.get_trial(self._id(trial)))

    def keep(self, key: str, trial: Trial) -> None:
        """Know a trial by a key from now on."""
        self._name(key, self._id(trial))

    def reject(self, trial: Trial) -> None:
        """Close a trial that was drawn in vain; a sampler learns nothing from it."""
        self._storage.set_trial_state_values(self._id(trial), TrialState.FAIL)

    def forget(self, key: str) -> None:
        """Close a trial that came to nothing."""
        self._storage.set_trial_state_values(self._ids[key], TrialState.FAIL)

    # Trials are closed in the storage: `Study.tell` would copy the whole trial, to return it, and takes none twice.

    def tell(self, key: str, told: Told) -> None:
        """What came of a trial."""
        trial_id = self._ids[key]
        for name, violation in told.violations.items():
            self._storage.set_trial_system_attr(trial_id, _CONSTRAINT + name, violation)
        self._storage.set_trial_state_values(trial_id, *_ended(told))

    def add(self, key: str, coordinates: Coordinates, attributes: Mapping[str, Any], told: Told) -> None:
        """Add a trial from elsewhere that has ended, or was stopped.

        `Study.add_trial` would do the same; it takes ten times as long, because it copies every distribution.
        """
        state, values = _ended(told)
        now = datetime.now()
        constraints = {_CONSTRAINT + name: violation for name, violation in told.violations.items()}
        trial = FrozenTrial(
            number=-1,  # the storage gives it, as it does the id
            trial_id=-1,
            state=state,
            value=None,
            values=values,
            datetime_start=now,
            datetime_complete=now,
            params=dict(coordinates),
            distributions=self._distributions,
            user_attrs={},
            system_attrs={**attributes, **constraints},
            intermediate_values={},
        )
        self._name(key, self._storage.create_new_trial(self._study_id, trial))

    def reopen(self, key: str, coordinates: Coordinates, attributes: Mapping[str, Any]) -> None:
        """Add a trial from elsewhere that is still in flight."""
        trial = self.open(coordinates)
        for name, value in attributes.items():
            self._storage.set_trial_system_attr(self._id(trial), name, value)
        self._name(key, self._id(trial))

    def attributes(self, trial: Trial) -> dict[str, Any]:
        """What the sampler noted about a trial."""
        noted = self._storage.get_trial(self._id(trial)).system_attrs
        return {key: value for key, value in noted.items() if not any(word in key for word in _REDUNDANT)}

    def new_parents(self) -> dict[str, list[str]]:
        """Keys of the parents of each generation that has begun since this was last asked."""
        kept = self._storage.get_study_system_attrs(self._study_id)
        new = {name: ids for name, ids in kept.items() if _PARENTS in name and name not in self._known_parents}
        self._known_parents.update(new)
        return {name: [self._keys[trial_id] for trial_id in ids] for name, ids in new.items()}

    def set_parents(self, parents: Mapping[str, Sequence[str]]) -> None:
        """Put back what `new_parents` gave; parents that are not known are left to the sampler to choose anew."""
        for name, keys in parents.items():
            if all(key in self._ids for key in keys):
                self._storage.set_study_system_attr(self._study_id, name, [self._ids[key] for key in keys])
                self._known_parents.add(name)

    def _name(self, key: str, trial_id: int) -> None:
        self._ids[key], self._keys[trial_id] = trial_id, key

    def _id(self, trial: Trial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)


def _ended(told: Told) -> tuple[TrialState, list[float] | None]:
    return (TrialState.FAIL, None) if told.losses is None else (TrialState.COMPLETE, list(told.losses))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's message that a study was created, which is not one that a user knows of."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
