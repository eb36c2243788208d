"""A search by the sampler `auto`, which chooses among the layers' options and needs no coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from rank_search.options import OptionTable
from rank_search.point import Point, State
from rank_search.search.auto import Auto
from rank_search.search.coordinates import Coordinates, coordinates, coordinates_of, point_at
from rank_search.search.results import Told
from rank_search.search.sampler_memory import SamplerMemory
from rank_search.search.samplers import AUTO, RANDOM, make_sampler, searched
from rank_search.search.searcher import RANDOM_ATTEMPTS, SAMPLER_ATTEMPTS, Searcher
from rank_search.search.seeds import Seed
from rank_search.search.settings import SearchSettings
from rank_search.search.source import SearchTrial
from rank_search.search.space import Space


@final
class AutoSearcher(Searcher):
    """Asks `Auto`, and takes random points when it has none that is not known.

    Coordinates are noted beside each trial for whoever looks at the search, and never read here.

    Args:
        space: what can be chosen.
        options: what each layer may become.
        settings, seeds, dense, rng_seed: see `Searcher`.
    """

    def __init__(
        self,
        space: Space,
        options: OptionTable,
        settings: SearchSettings,
        seeds: Sequence[Seed],
        dense: Mapping[str, float],
        rng_seed: int = 0,
    ) -> None:
        super().__init__(options.costs, settings, seeds, dense, rng_seed)
        self._space, self._auto = space, Auto(space, options, settings, dense)
        self._objectives = [each.name for each in settings.objectives]
        self._diverged: dict[str, SearchTrial] = {}

    def _propose(self, number: int) -> SearchTrial | None:
        point = self._auto.propose(np.random.default_rng(self._derived(number, 0)), self._keys)
        return self._random(number) if point is None else self._place(number, point, AUTO)

    def _place(self, number: int, point: Point, label: str) -> SearchTrial:
        return self._begun(number, point, label, coordinates_of(self._space, point))

    def _random(self, number: int) -> SearchTrial | None:
        distributions = coordinates(self._space)
        memory = SamplerMemory(distributions, len(self._objectives))
        for attempt in range(SAMPLER_ATTEMPTS, SAMPLER_ATTEMPTS + RANDOM_ATTEMPTS):
            sampler = make_sampler(RANDOM, {}, self._derived(number, attempt), searched(distributions))
            drawn = memory.draw(sampler).params
            point = point_at(self._space, self._costs, drawn)
            if point.key not in self._keys:
                return self._begun(number, point, RANDOM, drawn)
        return None

    def _begun(self, number: int, point: Point, label: str, place: Coordinates) -> SearchTrial:
        self._auto.begin(point)
        return SearchTrial(number, point, self._notes(point, label, place))

    def _resume(self, trial: SearchTrial) -> None:
        self._auto.begin(trial.point)

    def _teach(self, trial: SearchTrial, told: Mapping[str, Told]) -> None:
        """Losses that were measured, or the worst seen so far of trials that diverged."""
        point, outcome = trial.point, trial.outcome
        self._diverged.pop(point.key, None)
        if outcome is None:
            return
        if outcome.state is State.DIVERGED:
            self._diverged[point.key] = trial
        elif all(name in outcome.measurements for name in self._objectives):
            is_complete = outcome.state is State.COMPLETE
            self._auto.learn(point, told[point.key].losses, trial.share, is_complete, outcome.settled)
        else:
            self._auto.learn(point, None)
        for key in self._diverged.keys() & told.keys():
            again = self._diverged[key]
            self._auto.learn(again.point, told[key].losses, again.share, is_complete=False)

    def _forget(self, key: str) -> None:
        self._auto.forget(key)
