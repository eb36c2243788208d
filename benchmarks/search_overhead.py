"""What a search adds to each trial, beside an Optuna study on its own SQLite storage.

Run: python -m benchmarks.search_overhead [--sampler auto|random|nsga2] [--trials 2000] [--optuna-trials 100]

60 coordinates, two objectives, SQLite files, and trials that take no time, one after the other. Ours is the real
driver, with an executor that answers at once: ask, claim, record, learn, front, hypervolume. Optuna's is ask, 60
suggests, tell. Both use the same sampler class with the same options; the time inside the sampler's own methods is
measured apart and taken off ("net"); beside `auto` Optuna's is random. In Optuna's case the sampler's reading of its
storage goes with it, in its favor.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import optuna

from benchmarks.empty_trials import LAYERS, Search
from rank_search.artifacts import ArtifactStore
from rank_search.launch import InProcess, SearchDriver, SearchPlan
from rank_search.observe import Observers, SearchProgress
from rank_search.point import Objective, Outcome, Point, State
from rank_search.search import Rungs, coordinates
from rank_search.search.auto import Auto
from rank_search.search.samplers import AUTO, RANDOM, SAMPLERS
from rank_search.store import Store, StudyRecord

WINDOW = 40
SEEDS = 11  # these and two dense ones; before they are asked no sampler is at work


@dataclass
class Meter:
    """CPU and wall seconds of each trial, and the CPU seconds spent inside the sampler's own methods."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    sampler: list[float] = field(default_factory=list)
    inside: float = 0.0
    last: tuple[float, float] | None = None

    def tick(self, _progress: SearchProgress) -> None:
        """A trial of the driver's has just been recorded and told."""
        now = (time.process_time(), time.perf_counter())
        if self.last is not None:
            self.cpu.append(now[0] - self.last[0])
            self.wall.append(now[1] - self.last[1])
            self.sampler.append(self.inside)
        self.inside, self.last = 0.0, now

    @contextmanager
    def trial(self) -> Iterator[None]:
        self.inside, cpu, wall = 0.0, time.process_time(), time.perf_counter()
        yield
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        self.sampler.append(self.inside)

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.inside += time.process_time() - start

        return wrapper

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        if name == AUTO:
            with patch.object(Auto, "propose", self.timed(Auto.propose)):
                yield
            return
        sampler = SAMPLERS[name]
        relative, independent = self.timed(sampler.sample_relative), self.timed(sampler.sample_independent)
        with (
            patch.object(sampler, "sample_relative", relative),
            patch.object(sampler, "sample_independent", independent),
        ):
            yield

    def milliseconds(self, values: list[float], at: int) -> float:
        """Median over a window that begins with trial `at`."""
        return 1e3 * median(values[at : at + WINDOW])

    def net(self, at: int) -> float:
        rest = [cpu - sampler for cpu, sampler in zip(self.cpu, self.sampler, strict=True)]
        return self.milliseconds(rest, at)


def outcome(search: Search, point: Point) -> Outcome:
    """A made-up error, and the counted costs."""
    ranks = [choice.values.get("rank", 64) for choice in point.layers.values()]
    error = sum(math.exp(-rank / (10 + index)) for index, rank in enumerate(ranks))
    return Outcome(State.COMPLETE, {"error": error, **search.costs.cost(point)})


def ours(folder: Path, sampler: str, trials: int) -> Meter:
    """Searcher and store, as the driver uses them."""
    search, meter = Search.make(sampler), Meter()
    record = StudyRecord(
        name="overhead",
        fingerprint={},
        space={},
        objectives=(Objective("error"), Objective("macs")),
        reference_point={"error": LAYERS, "macs": search.costs.dense["macs"]},
        ideal={"error": 0.0, "macs": 0.0},
        dense=search.costs.dense,
        budget=1,
    )
    with Store.open(folder / "ours.sqlite", create=True) as store, meter.around(sampler):
        plan = SearchPlan(
            trials, Rungs(None, 1.0), 0, (), lambda point: None, max_retries=0, artifacts=ArtifactStore(folder)
        )
        executor = InProcess(lambda job: outcome(search, job.point))
        SearchDriver(store, store.join(record), search.searcher, executor, plan, Observers(meter.tick)).run()
    return meter


def optunas(folder: Path, sampler: str, trials: int) -> Meter:
    """Optuna alone, on its SQLite storage."""
    sampler = RANDOM if sampler == AUTO else sampler
    search, meter = Search.make(sampler), Meter()
    distributions = coordinates(search.space)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options: dict[str, Any] = {"population_size": 24} if sampler == "nsga2" else {}
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.sqlite'}",
        sampler=SAMPLERS[sampler](seed=0, **options),  # type: ignore[call-arg]
        directions=["minimize", "minimize"],
    )
    with meter.around(sampler):
        for number in range(trials):
            with meter.trial():
                trial = study.ask(distributions)
                study.tell(trial, [float(number % 7), float(number % 5)])
    return meter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", choices=[AUTO, "random", "nsga2"], default="nsga2")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--optuna-trials", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        mine = ours(Path(name), arguments.sampler, arguments.trials)
        theirs = optunas(Path(name), arguments.sampler, arguments.optuna_trials)
    print(f"sampler {arguments.sampler}, 60 coordinates, SQLite; milliseconds per trial, medians of {WINDOW} trials")
    print(f"{'':>12}  {'trials':>11}  {'wall':>7}  {'CPU':>7}  {'sampler':>7}  {'net CPU':>7}")
    rows = [
        *(("rank-search", mine, at) for at in (0, SEEDS, arguments.trials // 2, arguments.trials - WINDOW)),
        *(("Optuna", theirs, at) for at in (0, arguments.optuna_trials - WINDOW)),
    ]
    for label, meter, at in rows:
        figures = [meter.milliseconds(each, at) for each in (meter.wall, meter.cpu, meter.sampler)]
        columns = "  ".join(f"{figure:7.2f}" for figure in (*figures, meter.net(at)))
        print(f"{label:>12}  {at:>5}-{at + WINDOW:<5}  {columns}")
    first = theirs.net(0) / mine.net(SEEDS)
    last = theirs.net(arguments.optuna_trials - WINDOW) / mine.net(arguments.trials - WINDOW)
    print(f"net CPU, Optuna over rank-search: {first:.1f}× at the start, {last:.1f}× at the end of each")


if __name__ == "__main__":
    main()
