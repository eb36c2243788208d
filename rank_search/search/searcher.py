"""The driver's side of a search: asked for points, told what came of them, and fed from the store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np

from rank_search.options import CostModel
from rank_search.point import Outcome, Point, State
from rank_search.search.coordinates import Coordinates
from rank_search.search.results import Results, Told
from rank_search.search.seeds import Seed
from rank_search.search.settings import SearchSettings
from rank_search.search.source import SearchTrial

SAMPLER_ATTEMPTS: Final = 8
_UNTOLD: Final = -1.0
RANDOM_ATTEMPTS: Final = 200


class Searcher(ABC):
    """Decides which point comes next: the `Source` of a search.

    The seed points come first, each once in the life of the study. After them the sampler is asked; a point that
    is known already is never given again. The rng of each ask is derived from the study's rng seed and the
    number of the trial, and all that a sampler remembers lies in the trials: so a search on one worker that was
    killed and fed again goes on exactly as if it had never stopped.

    What the sampler is told: of a *complete* trial its losses, and how far it breaks each constraint. Of an
    *infeasible* one the same, with the worst loss seen so far in place of what was not measured. Of a *diverged*
    one the worst of every loss, so that it stays away. Of a *failed* one nothing: a crash says nothing about the
    point, which is not asked again all the same.

    Where training has emptied components, the losses are those of what the model has become. `auto` learns them there;
    the other samplers learn them where they asked, as coordinates are what they choose. So `auto` alone learns of cuts
    of a trained model, too, which nobody asked for, as of points at a small share of the budget.

    With rungs there is one constraint more, the full budget: a *stopped* trial breaks it by the share that it lacks,
    one whose losses were not all measured by 1. So any trial at full budget that keeps the constraints is better than
    one that was stopped, and this is the better the further it came. When a trial goes on, its newest result takes
    the place of the one before.

    Args:
        costs: what a point costs.
        settings: sampler, objectives and constraints.
        seeds: points to ask first (see `seed_points`).
        dense: measurements of the dense model, for constraints relative to it.
        rng_seed: of the study, not negative.
    """

    def __init__(
        self,
        costs: CostModel,
        settings: SearchSettings,
        seeds: Sequence[Seed],
        dense: Mapping[str, float],
        rng_seed: int = 0,
    ) -> None:
        self._costs, self._seeds, self._rng_seed = costs, list(seeds), rng_seed
        self._results = Results(settings, dict(dense))
        self._labels: set[str] = set()
        self._keys: set[str] = set()
        self._open: dict[str, float] = {}  # keys of points that may yet be told, and the share of the budget told

    @property
    def has_seeds(self) -> bool:
        """Whether there are seed points to be asked yet."""
        return any(self._is_new(seed) for seed in self._seeds)

    def ask(self, number: int) -> SearchTrial | None:
        """A point that is not known yet; None when none was found.

        `number` is that of the trial it is meant for, and what its rng is derived from. If another driver proves
        to have taken the number or the point meanwhile, `withdraw`, `feed` what the store knows, and ask again.

        Complexity: what the sampler computes, and a few milliseconds for 60 coordinates.
        """
        seed = self._next_seed()
        trial = self._propose(number) if seed is None else self._place(number, seed.point, seed.label)
        if trial is not None:
            self._know(trial)
            self._open[trial.point.key] = _UNTOLD
        return trial

    def tell(self, trial: SearchTrial, outcome: Outcome, share: float = 1.0) -> None:
        """What came of a trial, at a share of the full budget.

        One that is in flight here can be told, and one that was stopped at a smaller share; others are ignored.
        """
        key = trial.point.key
        if key in self._open and not (outcome.state is State.STOPPED and share <= self._open[key]):
            self._learn(trial, outcome, share)

    def withdraw(self, trial: SearchTrial) -> None:
        """Forget a trial that came to nothing; its point may be asked again, a seed point may not."""
        self._forget(trial.point.key)
        del self._open[trial.point.key]
        self._keys.remove(trial.point.key)

    def feed(self, trials: Iterable[SearchTrial]) -> None:
        """Learn what a store knows: trials that have ended, and those in flight. What is known is skipped.

        A trial that is fed in flight can be told later.
        """
        for trial in sorted(trials, key=lambda trial: trial.number):
            if trial.point.key in self._keys:
                if trial.outcome is not None:
                    self.tell(trial, trial.outcome, trial.share)
                continue
            self._know(trial)
            if trial.outcome is None:
                self._open[trial.point.key] = _UNTOLD
                self._resume(trial)
            else:
                self._learn(trial, trial.outcome, trial.share)

    # what the samplers do differently ---------------------------------------------------------------------

    @abstractmethod
    def _propose(self, number: int) -> SearchTrial | None:
        """The sampler's next point, whose trial is in flight from now on; None if there is none that is not known."""

    @abstractmethod
    def _place(self, number: int, point: Point, label: str) -> SearchTrial:
        """A trial of a seed point, in flight from now on."""

    @abstractmethod
    def _resume(self, trial: SearchTrial) -> None:
        """A trial from the store is in flight."""

    @abstractmethod
    def _teach(self, trial: SearchTrial, told: Mapping[str, Told]) -> None:
        """The newest result of this trial, which has an outcome; others that have to be told again are with it."""

    @abstractmethod
    def _forget(self, key: str) -> None:
        """The trial of that point came to nothing."""

    # what they share --------------------------------------------------------------------------------------

    def _derived(self, number: int, attempt: int) -> int:
        return int(np.random.SeedSequence([self._rng_seed, number, attempt]).generate_state(1)[0])

    def _notes(self, point: Point, label: str, coordinates: Coordinates) -> dict[str, Any]:
        """What the store keeps beside the point, for whoever looks at the search: see `SearchTrial.sampler`."""
        factorized = {name: choice for name, choice in point.layers.items() if not choice.is_dense}
        costs = {name: asdict(self._costs.layer_cost(name, choice)) for name, choice in factorized.items()}
        return {"label": label, "coordinates": dict(coordinates), "layer_costs": costs}

    def _next_seed(self) -> Seed | None:
        while self._seeds:
            seed = self._seeds.pop(0)
            if self._is_new(seed):
                return seed
        return None

    def _is_new(self, seed: Seed) -> bool:
        return seed.label not in self._labels and seed.point.key not in self._keys

    def _know(self, trial: SearchTrial) -> None:
        self._keys.add(trial.point.key)
        self._labels.add(trial.label)

    def _learn(self, trial: SearchTrial, outcome: Outcome, share: float) -> None:
        """A trial that was stopped may go on; any other has ended."""
        key = trial.point.key
        if outcome.state is State.STOPPED:
            self._open[key] = share
        else:
            self._open.pop(key, None)
        self._teach(replace(trial, outcome=outcome, share=share), self._results.learn(key, outcome, share))
