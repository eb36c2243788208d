"""The driver's side of a search: asked for points, told what came of them, and fed from the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from rank_search.options import CostModel, OptionTable
from rank_search.point import Outcome, Point, State
from rank_search.search.auto import Auto
from rank_search.search.coordinates import coordinates, coordinates_of, point_at
from rank_search.search.results import Results, Told
from rank_search.search.sampler_memory import SamplerMemory
from rank_search.search.samplers import AUTO, RANDOM, Distributions, make_sampler, starting_options
from rank_search.search.seeds import Seed
from rank_search.search.settings import SearchSettings
from rank_search.search.space import Space

SAMPLER_ATTEMPTS: Final = 8
RANDOM_ATTEMPTS: Final = 200


@dataclass(frozen=True)
class Suggestion:
    """A point to try as trial `number`.

    `sampler` is what a store keeps so that a search can go on later: label, coordinates, and what the sampler
    noted. It is plain JSON.
    """

    number: int
    point: Point
    sampler: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Which seed point it is, or the sampler that made it."""
        return str(self.sampler["label"])


@dataclass(frozen=True)
class Past:
    """A trial as the store knows it; without an outcome it is still in flight.

    `share` is the budget that its outcome came of, as a share of the full one.
    """

    number: int
    point: Point
    sampler: Mapping[str, Any]
    outcome: Outcome | None = None
    share: float = 1.0

    @property
    def suggestion(self) -> Suggestion:
        """The suggestion that it began with."""
        return Suggestion(self.number, self.point, self.sampler)


class Searcher:
    """Decides which point comes next.

    The seed points come first, each once in the life of the study. After them the sampler is asked; a point that
    is known already is never given again. The rng of each ask is derived from the study's rng seed and the
    number of the trial, and all that a sampler remembers lies in the trials: so a search on one worker that was
    killed and fed again goes on exactly as if it had never stopped.

    What the sampler is told: of a *complete* trial its losses, and how far it breaks each constraint. Of an
    *infeasible* one the same, with the worst loss seen so far in place of what was not measured. Of a *diverged*
    one the worst of every loss, so that it stays away. Of a *failed* one nothing: a crash says nothing about the
    point, which is not asked again all the same.

    With rungs there is one constraint more, the full budget: a *stopped* trial breaks it by the share that it lacks,
    one whose losses were not all measured by 1. So any trial at full budget that keeps the constraints is better than
    one that was stopped, and this is the better the further it came. When a trial goes on, its newest result takes
    the place of the one before.

    Args:
        space, costs: what can be chosen, and what it costs.
        settings: sampler, objectives and constraints.
        seeds: points to ask first (see `seed_points`).
        dense: measurements of the dense model, for constraints relative to it.
        rng_seed: of the study, not negative.
        options: what each layer may become, for the sampler `auto`, which has to know.
    """

    def __init__(
        self,
        space: Space,
        costs: CostModel,
        settings: SearchSettings,
        seeds: Sequence[Seed],
        dense: Mapping[str, float],
        rng_seed: int = 0,
        options: OptionTable | None = None,
    ) -> None:
        self._space, self._costs, self._settings = space, costs, settings
        self._seeds, self._rng_seed = list(seeds), rng_seed
        self._auto = _auto(space, settings, dense, options) if settings.sampler == AUTO else None
        self._sampler_name = RANDOM if self._auto else settings.sampler
        self._options = starting_options(self._sampler_name, settings.options, len(seeds))
        distributions = coordinates(space)
        self._searched: Distributions = {
            name: each for name, each in sorted(distributions.items()) if not each.single()
        }
        self._memory = SamplerMemory(distributions, len(settings.objectives))
        self._results = Results(settings, dict(dense))
        self._labels: set[str] = set()
        self._keys: set[str] = set()
        self._diverged: dict[str, tuple[Point, float]] = {}  # with the share of the budget, as far as `auto` is told
        self._open: dict[str, float] = {}  # keys of points that may yet be told, and the share of the budget told

    def ask(self, number: int) -> Suggestion | None:
        """A point that is not known yet; None when none was found.

        `number` is that of the trial it is meant for, and what its rng is derived from. If another driver proves
        to have taken the number or the point meanwhile, `withdraw`, `feed` what the store knows, and ask again.

        Complexity: what the sampler computes, and a few milliseconds for 60 coordinates.
        """
        seed = self._next_seed()
        if seed is not None:
            return self._given(number, seed.point, seed.label)
        if self._auto is not None:
            point = self._auto.propose(np.random.default_rng(self._derived(number, 0)), self._keys)
            return self._random(number) if point is None else self._given(number, point, AUTO)
        for attempt in range(SAMPLER_ATTEMPTS):
            trial = self._memory.draw(self._sampler(number, attempt))
            if suggestion := self._new(number, trial, self._settings.sampler):
                return suggestion
        return self._random(number)

    def tell(self, suggestion: Suggestion, outcome: Outcome, share: float = 1.0) -> None:
        """What came of a suggestion, at a share of the full budget.

        One that is in flight here can be told, and one that was stopped at a smaller share; others are ignored.
        """
        key = suggestion.point.key
        if key not in self._open or (outcome.state is State.STOPPED and share <= self._open[key]):
            return
        self._keep_open(key, outcome, share)
        told = self._results.learn(key, outcome, share)
        self._teach(suggestion.point, outcome, share, told)
        for each, again in told.items():
            self._memory.tell(each, again)

    def withdraw(self, suggestion: Suggestion) -> None:
        """Forget a suggestion that came to nothing; its point may be asked again, a seed point may not."""
        self._memory.forget(suggestion.point.key)
        if self._auto is not None:
            self._auto.forget(suggestion.point.key)
        del self._open[suggestion.point.key]
        self._keys.remove(suggestion.point.key)

    def feed(self, trials: Iterable[Past]) -> None:
        """Learn what a store knows: trials that have ended, and those in flight. What is known is skipped.

        A trial that is fed in flight can be told later: `searcher.tell(past.suggestion, outcome)`.
        """
        for past in sorted(trials, key=lambda past: past.number):
            if (key := past.point.key) not in self._keys:
                self._learn(key, past)
            elif past.outcome is not None:
                self.tell(past.suggestion, past.outcome, past.share)

    def _next_seed(self) -> Seed | None:
        while self._seeds:
            seed = self._seeds.pop(0)
            if seed.label not in self._labels and seed.point.key not in self._keys:
                return seed
        return None

    def _given(self, number: int, point: Point, label: str) -> Suggestion:
        """The suggestion of a point that no sampler of Optuna's drew."""
        trial = self._memory.open(coordinates_of(self._space, point))
        self._memory.join_generation(trial, self._sampler(number, 0))
        return self._suggest(number, trial, point, label)

    def _random(self, number: int) -> Suggestion | None:
        """A random point, when the sampler has only repeated itself."""
        for attempt in range(SAMPLER_ATTEMPTS, SAMPLER_ATTEMPTS + RANDOM_ATTEMPTS):
            trial = self._memory.draw(make_sampler(RANDOM, {}, self._derived(number, attempt), self._searched))
            self._memory.join_generation(trial, self._sampler(number, attempt))
            if suggestion := self._new(number, trial, RANDOM):
                return suggestion
        return None

    def _sampler(self, number: int, attempt: int) -> BaseSampler:
        rng_seed = self._derived(number, attempt)
        return make_sampler(self._sampler_name, self._options, rng_seed, self._searched)

    def _derived(self, number: int, attempt: int) -> int:
        return int(np.random.SeedSequence([self._rng_seed, number, attempt]).generate_state(1)[0])

    def _new(self, number: int, trial: Trial, label: str) -> Suggestion | None:
        """The suggestion that a drawn trial makes; None if its point is known."""
        point = point_at(self._space, self._costs, trial.params)
        if point.key not in self._keys:
            return self._suggest(number, trial, point, label)
        self._memory.reject(trial)
        return None

    def _suggest(self, number: int, trial: Trial, point: Point, label: str) -> Suggestion:
        self._memory.keep(point.key, trial)
        self._keys.add(point.key)
        self._labels.add(label)
        self._open[point.key] = 0.0
        self._begin(point)
        notes = {
            "label": label,
            "coordinates": trial.params,
            "attributes": self._memory.attributes(trial),
            "parents": self._memory.new_parents(),
            "layer_costs": {
                name: asdict(self._costs.layer_cost(name, choice))
                for name, choice in point.layers.items()
                if not choice.is_dense
            },
        }
        return Suggestion(number, point, notes)

    def _learn(self, key: str, past: Past) -> None:
        self._keys.add(key)
        self._labels.add(past.suggestion.label)
        self._memory.set_parents(past.sampler["parents"])
        known, attributes = past.sampler["coordinates"], past.sampler["attributes"]
        if past.outcome is None:
            self._open[key] = 0.0
            self._begin(past.point)
            self._memory.reopen(key, known, attributes)
            return
        self._keep_open(key, past.outcome, past.share)
        told = self._results.learn(key, past.outcome, past.share)
        self._teach(past.point, past.outcome, past.share, told)
        self._memory.add(key, known, attributes, told.pop(key))
        for other, again in told.items():
            self._memory.tell(other, again)

    def _begin(self, point: Point) -> None:
        if self._auto is not None:
            self._auto.begin(point)

    def _teach(self, point: Point, outcome: Outcome, share: float, told: Mapping[str, Told]) -> None:
        """What `auto` learns: losses that were measured, or the worst seen so far of trials that diverged."""
        if self._auto is None:
            return
        self._diverged.pop(point.key, None)
        if outcome.state is State.DIVERGED:
            self._diverged[point.key] = point, share
        elif all(each.name in outcome.measurements for each in self._settings.objectives):
            self._auto.learn(point, told[point.key].losses, share, outcome.state is State.COMPLETE)
        else:
            self._auto.learn(point, None)
        for key in self._diverged.keys() & told.keys():
            self._auto.learn(self._diverged[key][0], told[key].losses, self._diverged[key][1], is_complete=False)

    def _keep_open(self, key: str, outcome: Outcome, share: float) -> None:
        """A trial that was stopped may go on; any other has ended."""
        if outcome.state is State.STOPPED:
            self._open[key] = share
        else:
            self._open.pop(key, None)


def _auto(space: Space, settings: SearchSettings, dense: Mapping[str, float], options: OptionTable | None) -> Auto:
    if options is None:
        raise ValueError(f"The sampler {AUTO!r} has to know the layers' options; give them to the Searcher.")
    return Auto(space, options, settings, dense)
