"""A search by one of Optuna's samplers, which sees coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from rank_search.point import Point
from rank_search.search.coordinate_system import CoordinateSystem
from rank_search.search.coordinates import Coordinates
from rank_search.search.results import Told
from rank_search.search.sampler_memory import SamplerMemory
from rank_search.search.samplers import RANDOM, make_sampler, searched, starting_options
from rank_search.search.searcher import RANDOM_ATTEMPTS, SAMPLER_ATTEMPTS, Searcher
from rank_search.search.seeds import Seed
from rank_search.search.settings import SearchSettings
from rank_search.search.source import SearchTrial

NUDGE: Final = 0.02
"""How far from a known point the first other one is looked for, of the coordinates' ranges; the next ones farther."""


@final
class OptunaSearcher(Searcher):
    """Asks a sampler for coordinates, and takes random ones when it only repeats itself.

    Args:
        system: what the coordinates stand for.
        settings, seeds, dense, rng_seed: see `Searcher`.
    """

    def __init__(
        self,
        system: CoordinateSystem,
        settings: SearchSettings,
        seeds: Sequence[Seed],
        dense: Mapping[str, float],
        rng_seed: int = 0,
    ) -> None:
        super().__init__(system.costs, settings, seeds, dense, rng_seed)
        self._system, self._name = system, settings.sampler
        self._options = starting_options(settings.sampler, settings.options, len(seeds))
        distributions = system.distributions()
        self._searched = searched(distributions)
        self._memory = SamplerMemory(distributions, len(settings.objectives))

    def _propose(self, number: int) -> SearchTrial | None:
        drawn = self._memory.draw(self._sampler(number, 0))
        first = drawn.params
        for attempt in range(1, SAMPLER_ATTEMPTS + 1):
            if trial := self._new(number, drawn, self._name):
                return trial
            if attempt < SAMPLER_ATTEMPTS:
                drawn = self._again(number, attempt, first)
        return self._random(number)

    def _again(self, number: int, attempt: int, first: Coordinates) -> Trial:
        """Other coordinates than those that stood for a known point."""
        rng = np.random.default_rng(self._derived(number, attempt))
        near = self._system.near(first, NUDGE * attempt, rng)
        return self._memory.draw(self._sampler(number, attempt)) if near is None else self._memory.open(near)

    def _place(self, number: int, point: Point, label: str) -> SearchTrial:
        drawn = self._memory.open(self._system.coordinates_of(point))
        self._memory.join_generation(drawn, self._sampler(number, 0))
        return self._kept(number, drawn, point, label)

    def _random(self, number: int) -> SearchTrial | None:
        for attempt in range(SAMPLER_ATTEMPTS, SAMPLER_ATTEMPTS + RANDOM_ATTEMPTS):
            drawn = self._memory.draw(make_sampler(RANDOM, {}, self._derived(number, attempt), self._searched))
            self._memory.join_generation(drawn, self._sampler(number, attempt))
            if trial := self._new(number, drawn, RANDOM):
                return trial
        return None

    def _sampler(self, number: int, attempt: int) -> BaseSampler:
        return make_sampler(self._name, self._options, self._derived(number, attempt), self._searched)

    def _new(self, number: int, drawn: Trial, label: str) -> SearchTrial | None:
        """The trial of drawn coordinates; None if their point is known."""
        point = self._system.point_at(drawn.params)
        if point.key not in self._keys:
            return self._kept(number, drawn, point, label)
        self._memory.reject(drawn)
        return None

    def _kept(self, number: int, drawn: Trial, point: Point, label: str) -> SearchTrial:
        self._memory.keep(point.key, drawn)
        remembered = {"attributes": self._memory.attributes(drawn), "parents": self._memory.new_parents()}
        return SearchTrial(number, point, self._notes(point, label, drawn.params) | remembered)

    def _resume(self, trial: SearchTrial) -> None:
        self._memory.set_parents(trial.sampler["parents"])
        self._memory.reopen(trial.point.key, trial.sampler["coordinates"], trial.sampler["attributes"])

    def _teach(self, trial: SearchTrial, told: Mapping[str, Told]) -> None:
        new = None if trial.is_cut or trial.point.key in self._memory else trial.point.key
        if new is not None:  # coordinates were chosen for it
            self._memory.set_parents(trial.sampler["parents"])
            self._memory.add(new, trial.sampler["coordinates"], trial.sampler["attributes"], told[new])
        for key, again in told.items():
            if key != new and key in self._memory:
                self._memory.tell(key, again)

    def _forget(self, key: str) -> None:
        self._memory.forget(key)
