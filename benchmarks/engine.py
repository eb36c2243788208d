"""What the engine itself costs: trials that do nothing, two workers on Ray, beside Ray Tune as a user first writes it.

Run: python -m benchmarks.engine [--trials 300] [--tune-trials 300]

60 coordinates, two objectives, TPE. Ours is the whole engine: sampler, claim, actor, record, front, SQLite. Tune's is a
function, `OptunaSearch` with the same coordinates as uniform floats, and two trials at a time; it keeps no store. In
between: Tune with actors reused, no loggers and points that cost nothing to make, and bare actors. All in one run, on
one Ray of two CPUs, after it has started; ours and the bare actors after their workers are ready. With random sampling
ours is the engine alone: what TPE computes for 60 coordinates is the rest.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import optuna
import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks.empty_trials import drive, make_sleeper, on_ray

WORKERS = 2


def ours(sampler: str, folder: Path, trials: int) -> float:
    executor = on_ray(partial(make_sleeper, 0.0), WORKERS)
    while executor.workers < WORKERS:
        executor.collect(1)
    start = time.perf_counter()
    drive(folder, sampler, trials, executor, WORKERS)
    return time.perf_counter() - start


def nothing(config: dict[str, float]) -> dict[str, float]:
    return {"error": config["x0"], "macs": config["x1"]}


def tune_as_first_written(folder: Path, trials: int) -> float:
    space: dict[str, optuna.distributions.BaseDistribution] = {
        f"x{index}": optuna.distributions.FloatDistribution(0, 1) for index in range(60)
    }
    search = OptunaSearch(space, metric=["error", "macs"], mode=["min", "min"])
    start = time.perf_counter()
    tune.Tuner(
        tune.with_resources(nothing, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=ConcurrencyLimiter(search, WORKERS), num_samples=trials),
        run_config=tune.RunConfig(storage_path=str(folder / "first"), verbose=0),
    ).fit()
    return time.perf_counter() - start


class Counting(Searcher):
    """Points that cost nothing to make."""

    def __init__(self, trials: int) -> None:
        super().__init__(metric="error", mode="min")
        self.left = trials

    def suggest(self, trial_id: str) -> Any:
        self.left -= 1
        return {"x0": float(self.left), "x1": 0.0} if self.left >= 0 else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        return

    def save(self, checkpoint_path: str) -> None:
        return

    def restore(self, checkpoint_path: str) -> None:
        return


class Nothing(tune.Trainable):
    """A trial whose actor can be used again."""

    def setup(self, config: dict[str, float]) -> None:
        self.config = config

    def reset_config(self, new_config: dict[str, float]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        return {**nothing(self.config), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return

    def load_checkpoint(self, checkpoint: Any) -> None:
        return


def tune_with_reused_actors(folder: Path, trials: int) -> float:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    config = tune.TuneConfig(
        search_alg=Counting(trials), num_samples=-1, reuse_actors=True, max_concurrent_trials=WORKERS
    )
    start = time.perf_counter()
    tune.Tuner(
        tune.with_resources(Nothing, {"cpu": 1}),
        tune_config=config,
        run_config=tune.RunConfig(storage_path=str(folder / "reused"), verbose=0),
    ).fit()
    return time.perf_counter() - start


class Bare:
    def run(self, number: int) -> int:
        return number


def bare_actors(_folder: Path, trials: int) -> float:
    remote: Any = ray.remote(num_cpus=1)(Bare)
    actors = [remote.remote() for _ in range(WORKERS)]
    ray.get([actor.run.remote(0) for actor in actors])
    start = time.perf_counter()
    busy = {actor.run.remote(number): actor for number, actor in enumerate(actors)}
    given = len(busy)
    while busy:
        (done,), _ = ray.wait(list(busy), num_returns=1)
        actor = busy.pop(done)
        if given < trials:
            busy[actor.run.remote(given)] = actor
            given += 1
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--tune-trials", type=int, default=300)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ray.init("local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ways: list[tuple[str, Callable[[Path, int], float], int]] = [
        ("rank-search on Ray, TPE, SQLite store", partial(ours, "tpe"), arguments.trials),
        ("rank-search on Ray, random, SQLite store", partial(ours, "random"), arguments.trials),
        ("Ray Tune + OptunaSearch as first written", tune_as_first_written, arguments.tune_trials),
        ("Ray Tune, actors reused, nothing to search", tune_with_reused_actors, arguments.trials),
        ("bare actors, nothing around them", bare_actors, arguments.trials),
    ]
    rates: dict[str, float] = {}
    print(f"{'':44} trials    seconds   trials/s   ms a trial")
    for name, run, trials in ways:
        with tempfile.TemporaryDirectory() as folder:
            seconds = run(Path(folder), trials)
        rates[name] = trials / seconds
        print(f"{name:44} {trials:6} {seconds:10.2f} {rates[name]:10.2f} {1e3 / rates[name]:12.1f}", flush=True)
    tpe, _, first_written = list(rates.values())[:3]
    print(f"ours with TPE / Tune as first written: {tpe / first_written:.1f}×")


if __name__ == "__main__":
    main()
