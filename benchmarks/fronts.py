"""`record` and `front` beside Optuna's `best_trials`, on the same trials of 60 ranks each.

Run: python benchmarks/fronts.py [--sizes 1000 10000 100000] [--optuna-sizes 1000 10000] [--folder DIR]

Both databases are SQLite files that are filled by bulk inserts, because Optuna takes 0.2 s for each trial that is
added one by one. What is timed are the real calls: ours on a store that is already open, and on one that is opened
for the call; Optuna's on a study that has just been loaded, and a second time with its cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from sqlalchemy import Connection, create_engine, insert

from rank_search.point import Choice, Execution, Objective, Outcome, Point, State
from rank_search.store import Store, StudyRecord, tables
from rank_search.store.audit import first_dominators

LAYERS: Final = 60
HIGHEST: Final = 512
OBJECTIVES: Final = ("error", "macs", "bits")
EXTRA: Final = ("params", "latency")
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE: Final = 1_000


@dataclass(frozen=True)
class Trials:
    """`ranks`: (n, LAYERS) whole numbers; `losses`: (n, objectives)."""

    ranks: NDArray[np.int64]
    losses: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ranks)

    def point(self, row: int) -> Point:
        ranks = self.ranks[row].tolist()
        return Point({f"layer{place:02}.conv": Choice("svd", {"rank": rank}) for place, rank in enumerate(ranks)})

    def measurements(self, row: int) -> dict[str, float]:
        return dict(zip((*OBJECTIVES, *EXTRA), (*self.losses[row].tolist(), 1.0, 2.0), strict=True))


def draw(count: int) -> Trials:
    """Trials whose costs grow with their ranks and whose errors shrink with them, with much scatter."""
    generator = np.random.default_rng(0)
    scale = generator.uniform(0.02, 1.0, size=(count, 1))
    ranks = np.clip(scale * generator.uniform(0.4, 1.0, size=(count, LAYERS)) * HIGHEST, 1, HIGHEST).astype(np.int64)
    macs = ranks.mean(axis=1) / HIGHEST
    bits = macs * generator.uniform(0.5, 1.0, size=count)
    error = 0.05 / (0.1 + macs) * generator.lognormal(0.0, 0.15, size=count) + 0.01 / (0.1 + bits)
    return Trials(ranks, np.stack([error, macs, bits], axis=1))


# ---- filling -----------------------------------------------------------------------------------------------


def a_study() -> StudyRecord:
    return StudyRecord(
        name="bench",
        fingerprint={},
        space={},
        objectives=tuple(Objective(name) for name in OBJECTIVES),
        reference_point=dict.fromkeys(OBJECTIVES, 1.0),
        ideal=dict.fromkeys(OBJECTIVES, 0.0),
        dense=dict.fromkeys(OBJECTIVES, 1.0),
        budget=1.0,
    )


def fill_store(path: Path, trials: Trials) -> None:
    with Store.open(path, create=True) as store:
        study = store.join(a_study())
    dominators = first_dominators(trials.losses.tolist())
    engine = create_engine(f"sqlite:///{path}")
    for rows in slices(len(trials)):
        with engine.begin() as connection:
            insert_ours(connection, study.id, trials, rows)
    with engine.begin() as connection:
        beaten = [{"loser": row + 1, "winner": by + 1} for row, by in enumerate(dominators) if by is not None]
        connection.exec_driver_sql("UPDATE rs_trial SET dominated_by = :winner WHERE id = :loser", beaten)
    engine.dispose()


def insert_ours(connection: Connection, study_id: int, trials: Trials, rows: range) -> None:
    points = {row: trials.point(row) for row in rows}
    connection.execute(
        insert(tables.trial),
        [
            {
                "id": row + 1,
                "study_id": study_id,
                "number": row,
                "point": point.to_json(),
                "point_key": point.key,
                "state": "complete",
                "budget": 1.0,
                "rng_seed": row,
                "worker": "bench",
                "attempt": 1,
                "started": NOW,
                "finished": NOW,
                "reason": "",
                "sampler": json.dumps({"label": "bench"}),
                "eligible": True,
            }
            for row, point in points.items()
        ],
    )
    connection.execute(
        insert(tables.choice),
        [
            {
                "trial_id": row + 1,
                "layer": layer,
                "factorization": "svd",
                "axis": "rank",
                "value": choice.values["rank"],
            }
            for row, point in points.items()
            for layer, choice in point.layers.items()
        ],
    )
    connection.execute(
        insert(tables.measurement),
        [
            {"trial_id": row + 1, "budget": 1.0, "name": name, "value": value}
            for row in rows
            for name, value in trials.measurements(row).items()
        ],
    )


def fill_optuna(path: Path, trials: Trials) -> None:
    url = f"sqlite:///{path}"
    optuna.create_study(storage=url, study_name="bench", directions=["minimize"] * len(OBJECTIVES))
    engine = create_engine(url)
    for rows in slices(len(trials)):
        with engine.begin() as connection:
            insert_optuna(connection, trials, rows)
    engine.dispose()


def insert_optuna(connection: Connection, trials: Trials, rows: range) -> None:
    connection.exec_driver_sql(
        "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete) "
        "VALUES (?, ?, 1, 'COMPLETE', '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000')",
        [(row + 1, row) for row in rows],
    )
    distribution = optuna.distributions.distribution_to_json(optuna.distributions.IntDistribution(1, HIGHEST))
    connection.exec_driver_sql(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
        [
            (row + 1, f"layer{place:02}.conv", float(rank), distribution)
            for row in rows
            for place, rank in enumerate(trials.ranks[row].tolist())
        ],
    )
    connection.exec_driver_sql(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')",
        [(row + 1, place, value) for row in rows for place, value in enumerate(trials.losses[row].tolist())],
    )


def slices(count: int) -> Iterator[range]:
    for start in range(0, count, AT_ONCE):
        yield range(start, min(start + AT_ONCE, count))


# ---- timing ------------------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """The median."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def time_store(path: Path, new: Trials) -> dict[str, float]:
    def opened() -> None:
        with Store.open(path) as fresh:
            fresh.front(fresh.study("bench"))

    with Store.open(path) as store:
        study = store.study("bench")
        last = store.next_number(study) - 1
        found = {
            "members": float(len(store.front(study))),
            "front": seconds(lambda: store.front(study), 20),
            "front, every point decoded": seconds(lambda: [row.point for row in store.front(study)], 20),
            "front as of half way": seconds(lambda: store.front(study, as_of=last // 2), 5),
            "front of two objectives": seconds(lambda: store.front(study, objectives=["error", "bits"]), 3),
        }
        found["open, front, close"] = seconds(opened, 5)
        found |= time_writing(store, study, new)
    return found


def time_writing(store: Store, study: StudyRecord, new: Trials) -> dict[str, float]:
    claims, records = [], []
    for row in range(len(new)):
        begin = time.perf_counter()
        claim = store.claim(study, new.point(row), "bench")
        between = time.perf_counter()
        assert claim is not None
        outcome = Outcome(State.COMPLETE, new.measurements(row))
        store.record(study, claim, outcome, Execution(row, NOW, NOW))
        claims.append(between - begin)
        records.append(time.perf_counter() - between)
    return {"claim": statistics.median(claims), "record": statistics.median(records)}


def time_optuna(path: Path, new: Trials) -> dict[str, float]:
    study = optuna.load_study(study_name="bench", storage=f"sqlite:///{path}")
    found = {"front": seconds(lambda: study.best_trials, 1), "front again": seconds(lambda: study.best_trials, 1)}
    found["members"] = float(len(study.best_trials))
    ready = iter([optuna_trial(new, row) for row in range(5)])
    found["record"] = seconds(lambda: study.add_trial(next(ready)), 5)
    return found


def optuna_trial(trials: Trials, row: int) -> optuna.trial.FrozenTrial:
    ranks = {f"layer{place:02}.conv": rank for place, rank in enumerate(trials.ranks[row].tolist())}
    return optuna.create_trial(
        params=ranks,
        distributions={name: optuna.distributions.IntDistribution(1, HIGHEST) for name in ranks},
        values=trials.losses[row].tolist(),
    )


# ---- printing ----------------------------------------------------------------------------------------------


def report(size: int, ours: dict[str, float], theirs: dict[str, float] | None) -> None:
    print(f"\n{size:,} trials, {int(ours.pop('members'))} on the front")
    for name, value in ours.items():
        print(f"  {name:<30}{value * 1000:10.1f} ms")
    if theirs is not None:
        assert theirs["members"] > 0
        for name, mine in (("front", "front"), ("front again", "front"), ("record", "record")):
            shown = {"front": "best_trials", "front again": "best_trials, cached", "record": "add_trial"}[name]
            print(f"  optuna {shown:<23}{theirs[name] * 1000:10.1f} ms   {theirs[name] / ours[mine]:8.0f} × ours")


def main(sizes: Sequence[int], optuna_sizes: Sequence[int], folder: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for size in sizes:
        trials = draw(size + 100)
        base = Trials(trials.ranks[:size], trials.losses[:size])
        new = Trials(trials.ranks[size:], trials.losses[size:])
        path, other = folder / f"ours-{size}.sqlite", folder / f"optuna-{size}.sqlite"
        fill_store(path, base)
        ours = time_store(path, new)
        theirs = None
        if size in optuna_sizes:
            fill_optuna(other, base)
            theirs = time_optuna(other, new)
        report(size, ours, theirs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time `record` and `front` beside Optuna's `best_trials`.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--optuna-sizes", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--folder", type=Path, default=None, help="keep the databases here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(chosen.sizes, chosen.optuna_sizes, chosen.folder or Path(temporary))
