"""How much one driver gets through: asks with tells, and records, a second, beside what is known already.

Run: python -m benchmarks.driver_ceiling [--sizes 1000 10000 50000] [--samplers auto random nsga2 tpe] [--no-store]

60 coordinates and two objectives. The searcher is fed finished trials with random coordinates and made-up losses, as
it is when a search goes on from its store, and is then asked and told; "sampler" is the share of that time in the
sampler's own methods, Optuna's reading of its trials included. This is CPU time (set OMP_NUM_THREADS=1). Records go
into an SQLite store that was filled by bulk inserts: claim, then record, as the driver does; wall time. Medians.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
from optuna.samplers import RandomSampler

from benchmarks import fronts
from benchmarks.empty_trials import LAYERS, Search
from rank_search.point import Choice, Outcome, Point, State
from rank_search.search import SearchTrial
from rank_search.search.auto import Auto
from rank_search.search.samplers import FixedNSGAII, FixedTPE
from rank_search.store import Store

POPULATION = 24  # ours by default
RANGES = {"weakening": (0.0, 2.0), "multiplier": (-3.0, 3.0), "entropy": (-4.6, -1.0)}
OPTUNAS = ("sample_relative", "sample_independent", "before_trial")
SAMPLERS: dict[str, tuple[type[object], tuple[str, ...]]] = {
    "auto": (Auto, ("propose",)),
    "random": (RandomSampler, OPTUNAS),
    "nsga2": (FixedNSGAII, OPTUNAS),
    "tpe": (FixedTPE, OPTUNAS),
}
"""The class that computes, and its methods that do."""


def past_trials(count: int, names: Sequence[str]) -> list[SearchTrial]:
    """Random trials, in generations as NSGA-II would have them."""
    generator = np.random.default_rng(0)
    points = [_point(ranks) for ranks in generator.integers(1, 30, size=(count, LAYERS)).tolist()]
    trials = []
    for number, point in enumerate(points):
        generation = number // POPULATION
        begins = generation > 0 and number % POPULATION == 0
        notes = {
            "label": f"trial {number}",
            "coordinates": {name: _coordinate(generator, name) for name in names},
            "attributes": {"FixedNSGAII:generation": generation},
            "parents": {f"FixedNSGAII:parent:{generation}": [each.key for each in points[number - POPULATION : number]]}
            if begins
            else {},
        }
        trials.append(SearchTrial(number, point, notes, outcome(point)))
    return trials


def _point(ranks: Sequence[int]) -> Point:
    return Point({f"stage.{index // 5}.conv{index}": Choice("svd", {"rank": rank}) for index, rank in enumerate(ranks)})


def _coordinate(generator: np.random.Generator, name: str) -> str | float:
    kind = name.partition(":")[0]
    return float(generator.uniform(*RANGES[kind])) if kind in RANGES else "svd"


def outcome(point: Point) -> Outcome:
    ranks = [choice.values.get("rank", 64) for choice in point.layers.values()]
    error = sum(math.exp(-rank / (10 + index)) for index, rank in enumerate(ranks))
    return Outcome(State.COMPLETE, {"error": error, "macs": float(sum(ranks))})


@dataclass
class Clock:
    """Seconds in the sampler's own methods."""

    inside: float = 0.0

    @contextmanager
    def around(self, sampler: str) -> Iterator[None]:
        with ExitStack() as stack:
            computes, names = SAMPLERS[sampler]
            for name in names:
                stack.enter_context(patch.object(computes, name, self._timed(getattr(computes, name))))
            yield

    def _timed(self, method: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: object, **kwargs: object) -> object:
            begin = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.inside += time.process_time() - begin

        return timed


def time_asks(sampler: str, trials: Sequence[SearchTrial], seconds: float) -> str:
    search, clock = Search.make(sampler), Clock()
    begin = time.process_time()
    search.searcher.feed(trials)
    fed = time.process_time() - begin
    while _ask(search, len(trials)).label.startswith(("dense", "fraction", "weakening")):
        pass  # seed points first: no sampler is at work
    times: list[float] = []
    inside: list[float] = []
    with clock.around(sampler):
        while sum(times) < seconds or len(times) < 5:
            clock.inside, begin = 0.0, time.process_time()
            _ask(search, len(trials) + len(times) + 1)
            times.append(time.process_time() - begin)
            inside.append(clock.inside)
    each = median(times)
    return f"{fed:9.1f} {1e3 * each:12.1f} {100 * median(inside) / each:10.0f} {1 / each:12.1f}"


def _ask(search: Search, number: int) -> SearchTrial:
    asked = search.searcher.ask(number)
    assert asked is not None
    search.searcher.tell(asked, outcome(asked.point))
    return asked


def time_records(size: int, folder: Path) -> str:
    trials = fronts.draw(size + 200)
    path = folder / f"{size}.sqlite"
    fronts.fill_store(path, fronts.Trials(trials.ranks[:size], trials.losses[:size]))
    with Store.open(path) as store:
        study = store.study("bench")
        found = fronts.time_writing(store, study, fronts.Trials(trials.ranks[size:], trials.losses[size:]))
    both = found["claim"] + found["record"]
    return f"{1e3 * found['claim']:12.2f} {1e3 * found['record']:12.2f} {1 / both:12.1f}"


def main(sizes: Sequence[int], samplers: Sequence[str], seconds: float, store: bool) -> None:
    first = Search.make("random").searcher.ask(0)
    assert first is not None
    trials = past_trials(max(sizes), list(first.sampler["coordinates"]))
    print("sampler   finished    feed, s  ask+tell, ms  sampler, %  asks a second")
    for sampler in samplers:
        for size in sizes:
            print(f"{sampler:8} {size:9,} {time_asks(sampler, trials[:size], seconds)}", flush=True)
    if store:
        print("\n          finished     claim, ms    record, ms   records a second")
        with tempfile.TemporaryDirectory() as folder:
            for size in sizes:
                print(f"SQLite   {size:9,} {time_records(size, Path(folder))}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--seconds", type=float, default=10.0, help="spent on each combination")
    parser.add_argument("--no-store", action="store_true", help="leave the records out")
    chosen = parser.parse_args()
    main(chosen.sizes, chosen.samplers, chosen.seconds, not chosen.no_store)
