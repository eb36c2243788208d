"""How workers multiply the trials: sleeping ones on many logical CPUs, and the digits study on real ones.

Run: python -m benchmarks.scaling [--seconds 2] [--rounds 6] [--digits 16]

Sleeping trials: 60 coordinates, random sampling, SQLite, Ray's actors on more logical CPUs than there are; each worker
has `rounds` trials on average. Efficiency is the rate beside that of as many workers that lose no time at all, from the
first trial's beginning to the last one's end, with all workers ready. `--digits` adds `studies/digits.toml` with one
and two workers, local and on Ray (the data must be at hand: scikit-learn).
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import ray

import rank_search as rs
from benchmarks.empty_trials import drive, make_sleeper, on_ray
from rank_search.store import TrialRow

STUDIES = Path(__file__).parents[1] / "studies"


def spent(rows: list[TrialRow]) -> float:
    """Seconds from the first trial's beginning to the last one's end."""
    return (max(row.finished for row in rows) - min(row.started for row in rows)).total_seconds()


def sleeping(workers: list[int], seconds: float, rounds: int) -> None:
    ray.init("local", num_cpus=max(workers), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    print("workers   trials   seconds   trials a minute   efficiency")
    for count in workers:
        with tempfile.TemporaryDirectory() as folder:
            executor = on_ray(partial(make_sleeper, seconds), count)
            rows = drive(Path(folder), "random", count * rounds, executor, count)
        took = spent(rows)
        rate = 60 * len(rows) / took
        print(f"{count:7} {len(rows):8} {took:9.2f} {rate:17.1f} {rate * seconds / 60 / count:12.3f}", flush=True)
    ray.shutdown()


def digits(launcher: str, workers: int, trials: int) -> None:
    study = rs.load_study(STUDIES / "digits.toml").launched({"on": launcher, "workers": workers})
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = str(Path(folder) / "digits.sqlite")
        result = rs.run_study(study, store=store, trials=trials)
        whole = time.perf_counter() - start
        with rs.Store.open(store) as opened:
            rows = opened.trials(result.study)
    rate = 60 * len(rows) / spent(rows)
    print(f"{launcher:8} {workers:7} {len(rows):8} {spent(rows):9.1f} {rate:17.1f} {whole:12.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--digits", type=int, default=0, help="trials of the digits study in each case; 0 = none")
    arguments = parser.parse_args()
    if arguments.workers:
        sleeping(arguments.workers, arguments.seconds, arguments.rounds)
    if arguments.digits:
        print("launcher workers   trials   seconds   trials a minute   with start-up")
        for launcher in ("local", "ray"):
            for workers in (1, 2):
                digits(launcher, workers, arguments.digits)


if __name__ == "__main__":
    main()
