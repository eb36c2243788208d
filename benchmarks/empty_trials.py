"""A search without a network, for the benchmarks of the engine: made-up layers, and trials that do nothing or sleep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from rank_search.artifacts import ArtifactStore
from rank_search.launch import Executor, Job, LaunchSettings, Runner, SearchDriver, SearchPlan, WorkerRecipe
from rank_search.layers import Cost, Layer, load_plugin
from rank_search.options import CostModel, OptionTable
from rank_search.point import Choice, Objective, Outcome, State
from rank_search.priors import AxisPrior
from rank_search.search import (
    AUTO,
    AutoSearcher,
    OptunaSearcher,
    Rungs,
    Searcher,
    SearchSettings,
    Space,
    Weakenings,
    build_space,
    seed_points,
)
from rank_search.store import Store, StudyRecord, TrialRow

LADDERS = {"fractions": (0.75, 0.5, 0.35, 0.25, 0.15), "weakenings": (0.25, 0.5, 0.75, 1.0)}
LAYERS = 29  # with a categorical and a multiplier each, the weakening and the entropy strength: 60 coordinates


@dataclass(frozen=True)
class Search:
    """60 coordinates, two objectives, and a searcher that knows nothing yet."""

    searcher: Searcher
    space: Space
    costs: CostModel

    @classmethod
    def make(cls, sampler: str) -> Search:
        names = [f"stage.{index // 5}.conv{index}" for index in range(LAYERS)]
        layers = {
            name: Layer(name, "conv2d", (64, 64, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 64, 16, 16),))
            for name in names
        }
        plugins = {"svd": load_plugin("svd")}
        priors = [AxisPrior(name, "svd", "rank", 64, 1, 20, None, None, None, None) for name in names]
        settings = SearchSettings.model_validate(
            {"sampler": sampler, "entropy": {"low": 1e-4, "high": 1e-1}, "seeds": LADDERS}
        )
        space = build_space(layers, plugins, priors, settings)
        costs = CostModel(layers, plugins, Cost(0, 0))
        known = settings, seed_points(space, costs, settings), {**costs.dense, "error": 0.0}
        if sampler == AUTO:
            options = OptionTable(space.groups, costs, _lost, space.round_to)
            return cls(AutoSearcher(space, options, *known), space, costs)
        return cls(OptunaSearcher(Weakenings(space, costs), *known), space, costs)


def _lost(layer: str, choice: Choice) -> float:
    """How far a layer's outputs are off, made up: `auto` has to know."""
    return 0.0 if choice.is_dense else (1 - choice.values["rank"] / 64) ** 2


def make_sleeper(seconds: float) -> Runner:
    """A runner that sleeps, and makes up an error."""
    return partial(_sleep, seconds)


def _sleep(seconds: float, job: Job) -> Outcome:
    time.sleep(seconds)
    ranks = [choice.values.get("rank", 64) for choice in job.point.layers.values()]
    error = sum(math.exp(-rank / (10 + index)) for index, rank in enumerate(ranks))
    return Outcome(State.COMPLETE, {"error": error, "macs": float(sum(ranks))})


def drive(folder: Path, sampler: str, trials: int, executor: Executor, workers: int) -> list[TrialRow]:
    """The real driver and the real store around these trials; it begins when the workers are ready."""
    _wait_for(executor, workers)
    search = Search.make(sampler)
    record = StudyRecord(
        name="nothing",
        fingerprint={},
        space={},
        objectives=(Objective("error"), Objective("macs")),
        reference_point={"error": LAYERS, "macs": 64.0 * LAYERS},
        ideal={"error": 0.0, "macs": 0.0},
        dense=search.costs.dense,
        budget=1.0,
    )
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(folder / "store.sqlite", create=True))
        study = store.join(record)
        plan = SearchPlan(trials, Rungs(None, 1.0), 0, (), lambda point: None, 0, ArtifactStore(folder / "artifacts"))
        SearchDriver(store, study, search.searcher, executor, plan).run()
        return store.trials(study)


def _wait_for(executor: Executor, workers: int) -> None:
    while executor.workers < workers:
        executor.collect(1)


@final
@dataclass(frozen=True)
class _Made(WorkerRecipe[None, None]):
    """Nothing but the runner has to be made."""

    make: Callable[[], Runner]

    def init(self) -> None:
        return

    def load(self, place: int) -> None:
        return

    def runner(self, loaded: None, found: None) -> Runner:
        return self.make()


def on_ray(make: Callable[[], Runner], workers: int, cpus: float = 1.0) -> Executor:
    """Actors on the Ray cluster that is there."""
    from rank_search.launch import Cluster, RayActors, ship

    ship(Path(__file__).parent)
    return RayActors(Cluster(), _Made(make), None, workers, LaunchSettings(on="ray", cpus_per_trial=cpus))
