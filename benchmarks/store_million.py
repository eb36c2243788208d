"""The store at a million trials, generated, in SQLite and in PostgreSQL: what a driver's and a user's calls take.

Run: python -m benchmarks.store_million [--trials 1000000] [--layers 20] [--only sqlite|postgresql] [--folder DIR]

A trial has a point with a rank for each layer, five measurements, and a row for each choice; four in five are complete,
the others stopped at a rung, infeasible or failed. The rows are written in bulk, as Store.record would have left them;
up to 20,000 trials `Store.check` confirms that. What is timed are the real calls on a store that is open, on disk, with
every commit synchronized. PostgreSQL is a server of its own with the settings it comes with, after VACUUM ANALYZE.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rank_search.point import Bound, Choice, Execution, Objective, Outcome, Point, State
from rank_search.store import PriorRow, Store, StudyRecord
from rank_search.store.audit import first_dominators
from tests.store.postgres import Server, binaries

HIGHEST: Final = 512
FULL: Final = 9.0
OBJECTIVES: Final = ("error", "macs", "bits")
MEASURED: Final = (*OBJECTIVES, "params", "latency")
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS_EACH: Final = 10
AT_ONCE: Final = 10_000
CHECKED: Final = 20_000
STATES: Final = (State.COMPLETE, State.STOPPED, State.INFEASIBLE, State.FAILED)
SHARES: Final = (0.8, 0.15, 0.04, 0.01)

TRIAL: Final = (
    "id, study_id, number, state, budget, rng_seed, worker, attempt, started, finished, eligible, dominated_by, "
    "reason, point_key, sampler, point"
)
CHOICE: Final = "trial_id, layer, factorization, axis, value"
MEASUREMENT: Final = "trial_id, budget, name, value"
ARTIFACT: Final = "trial_id, kind, location, sha256, bytes"

Row = tuple[Any, ...]


# ---- what there is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trials:
    """`ranks`: (n, layers); `losses`: (n, 3); `states`: (n,), places in STATES; `dominators`: (n,), 0 for none."""

    ranks: NDArray[np.int16]
    losses: NDArray[np.float64]
    states: NDArray[np.int8]
    dominators: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ranks)

    def state(self, row: int) -> State:
        return STATES[int(self.states[row])]

    def budget(self, row: int) -> float:
        return 1.0 if self.state(row) is State.STOPPED else FULL

    def point(self, row: int) -> Point:
        ranks = self.ranks[row].tolist()
        return Point({layer_name(place): Choice("svd", {"rank": rank}) for place, rank in enumerate(ranks)})

    def measurements(self, row: int) -> dict[str, float]:
        if self.state(row) is State.FAILED:
            return {}
        return dict(zip(MEASURED, (*self.losses[row].tolist(), 1.0, 2.0), strict=True))


def layer_name(place: int) -> str:
    return f"stage{place // 6}.block{place // 2 % 3}.conv{place % 2}"


def draw(there: int, new: int, layers: int) -> tuple[Trials, Trials]:
    """Trials whose costs grow with their ranks and whose errors shrink with them, with much scatter."""
    count = there + new
    generator = np.random.default_rng(0)
    scale = generator.uniform(0.02, 1.0, size=(count, 1)).astype(np.float32)
    spread = generator.uniform(0.4, 1.0, size=(count, layers)).astype(np.float32)
    ranks = np.clip(scale * spread * HIGHEST, 1, HIGHEST).astype(np.int16)
    macs = ranks.mean(axis=1) / HIGHEST
    bits = macs * generator.uniform(0.5, 1.0, size=count)
    error = 0.05 / (0.1 + macs) * generator.lognormal(0.0, 0.15, size=count) + 0.01 / (0.1 + bits)
    losses = np.stack([error, macs, bits], axis=1).astype(np.float64)
    states = generator.choice(len(STATES), size=count, p=SHARES).astype(np.int8)
    dominators = _dominators(losses[:there], states[:there] == 0)
    return (
        Trials(ranks[:there], losses[:there], states[:there], dominators),
        Trials(ranks[there:], losses[there:], states[there:], np.zeros(new, dtype=np.int64)),
    )


def _dominators(losses: NDArray[np.float64], eligible: NDArray[np.bool_]) -> NDArray[np.int64]:
    places = np.flatnonzero(eligible)
    found = first_dominators(losses[places].tolist())
    dominators = np.zeros(len(losses), dtype=np.int64)
    dominators[places] = [0 if by is None else places[by] + 1 for by in found]
    return dominators


def a_study(layers: int) -> StudyRecord:
    return StudyRecord(
        name="bench",
        fingerprint={},
        space={},
        objectives=tuple(Objective(name) for name in OBJECTIVES),
        reference_point=dict.fromkeys(OBJECTIVES, 1.0),
        ideal=dict.fromkeys(OBJECTIVES, 0.0),
        dense=dict.fromkeys(OBJECTIVES, 1.0),
        budget=FULL,
        priors=tuple(PriorRow(layer_name(place), "svd", "rank", HIGHEST // 4, HIGHEST) for place in range(layers)),
    )


# ---- as rows ---------------------------------------------------------------------------------------------------


def trial_rows(trials: Trials, study_id: int, rows: range) -> Iterator[Row]:
    sampler = json.dumps({"label": "tpe"})
    for row in rows:
        text = point_text(trials.ranks[row].tolist())
        finished = (BEGIN + timedelta(seconds=SECONDS_EACH * row)).replace(tzinfo=None)
        state = trials.state(row)
        yield (
            row + 1,
            study_id,
            row,
            state.value,
            trials.budget(row),
            row,
            f"node{row % 16}:4711",
            1,
            finished - timedelta(minutes=5),
            finished,
            state is State.COMPLETE,
            int(trials.dominators[row]) or None,
            "it raised" if state is State.FAILED else "",
            hashlib.sha256(text.encode()).hexdigest(),
            sampler,
            text,
        )


def point_text(ranks: Sequence[int]) -> str:
    """The JSON of which a point's key is the digest."""
    pairs = sorted((layer_name(place), rank) for place, rank in enumerate(ranks))
    layers = ",".join(f'"{name}":{{"factorization":"svd","rank":{rank}}}' for name, rank in pairs)
    return f'{{"layers":{{{layers}}},"penalties":{{}}}}'


def choice_rows(trials: Trials, rows: range) -> Iterator[Row]:
    names = sorted((layer_name(place), place) for place in range(trials.ranks.shape[1]))
    for row in rows:
        ranks = trials.ranks[row].tolist()
        for name, place in names:
            yield row + 1, name, "svd", "rank", float(ranks[place])


def measurement_rows(trials: Trials, rows: range) -> Iterator[Row]:
    for row in rows:
        budget = trials.budget(row)
        for name, value in sorted(trials.measurements(row).items()):
            yield row + 1, budget, name, value


def artifact_rows(trials: Trials, rows: range) -> Iterator[Row]:
    """Only members of the front have kept theirs."""
    for row in rows:
        if trials.states[row] == 0 and trials.dominators[row] == 0:
            for kind in ("model", "coded"):
                yield row + 1, kind, f"{row:016x}.{kind}", "0" * 64, 1_000_000


def batches(trials: Trials, study_id: int) -> Iterator[tuple[str, str, Iterator[Row]]]:
    """Table, columns and rows, batch by batch."""
    for start in range(0, len(trials), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(trials)))
        yield "rs_trial", TRIAL, trial_rows(trials, study_id, rows)
        yield "rs_choice", CHOICE, choice_rows(trials, rows)
        yield "rs_measurement", MEASUREMENT, measurement_rows(trials, rows)
        yield "rs_artifact", ARTIFACT, artifact_rows(trials, rows)


# ---- filling ---------------------------------------------------------------------------------------------------


def fill_sqlite(path: Path, trials: Trials, study_id: int) -> None:
    sqlite3.register_adapter(datetime, lambda moment: moment.isoformat(" ", "microseconds"))
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "cache_size = -1000000"):
        connection.execute(f"PRAGMA {pragma}")
    for table, columns, rows in batches(trials, study_id):
        places = ", ".join("?" * len(columns.split(",")))
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows)
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def fill_postgresql(url: str, trials: Trials, study_id: int) -> None:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("SET session_replication_role = replica")  # keys are right by construction
        connection.execute("SET synchronous_commit = off")
        for table, columns, rows in batches(trials, study_id):
            with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            connection.commit()
        connection.execute(f"SELECT setval('rs_trial_id_seq', {len(trials)})")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


# ---- timing ----------------------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def show(what: str, times: Sequence[float], note: str = "") -> None:
    ordered = sorted(times)
    median, late = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
    print(f"  {what:<46}{median * 1000:9.1f} ms{late * 1000:9.1f} ms   {note}", flush=True)


def time_reading(store: Store, study: StudyRecord, trials: Trials) -> None:
    members = len(store.front(study))
    end = BEGIN + timedelta(seconds=SECONDS_EACH * len(trials))
    rank = [Bound.parse("stage1.block0.conv0.rank <= 100")]
    some = len(store.front(study, where=rank))
    show("front", seconds(lambda: store.front(study), 20), f"{members} members")
    show("front, the first 10", seconds(lambda: store.front(study, limit=10), 20))
    show("front --where a rank of one layer", seconds(lambda: store.front(study, where=rank), 20), f"{some} members")
    latency = [Bound.parse("latency <= 3")]
    show("front --where what is no objective", seconds(lambda: store.front(study, where=latency), 20))
    for share in (0.1, 0.5, 0.9):
        moment = int(share * len(trials))
        past = len(store.front(study, as_of=moment))
        times = seconds(partial(store.front, study, as_of=moment), 20)
        show(f"front as of trial {moment:,}", times, f"{past} members")
    show("next_number", seconds(lambda: store.next_number(study), 20))
    show("take_over, nothing to take", seconds(lambda: store.take_over(study, "w"), 20))
    show("trials, the 100 last ones", seconds(lambda: store.trials(study, after=len(trials) - 100), 20))
    show("trials, nothing new", seconds(lambda: store.trials(study, after=len(trials)), 20))
    show("trial", seconds(lambda: store.trial(study, len(trials) // 2), 20))
    show("activity of the last hour", seconds(lambda: store.activity(study, end - timedelta(hours=1)), 10))
    show("studies", seconds(store.studies, 5))


def time_writing(store: Store, study: StudyRecord, new: Trials) -> None:
    ran = Execution(0, BEGIN, BEGIN)
    kinds = ("claim", "record, stopped at a rung", "promote", "heartbeat", "record, in place of the stopped row")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for row in range(len(new)):
        point, outcome = new.point(row), Outcome(State.COMPLETE, new.measurements(row) or dict.fromkeys(MEASURED, 1.0))
        clock = [time.perf_counter()]
        first = store.claim(study, point, "bench", budget=1.0)
        clock.append(time.perf_counter())
        assert first is not None
        stopped = Outcome(State.STOPPED, outcome.measurements)
        store.record(study, first, stopped, ran)
        clock.append(time.perf_counter())
        again = store.promote(study, first.number, "bench", FULL)
        clock.append(time.perf_counter())
        assert again is not None
        store.heartbeat(study, [again])
        clock.append(time.perf_counter())
        store.record(study, again, outcome, ran)
        clock.append(time.perf_counter())
        for kind, (begin, end) in zip(kinds, itertools.pairwise(clock), strict=True):
            times[kind].append(end - begin)
    show("record, complete, judged against the front", time_whole(store, study, new))
    for kind, found in times.items():
        show(kind, found)


def time_whole(store: Store, study: StudyRecord, new: Trials) -> list[float]:
    """Complete trials, with other points than before."""
    times = []
    for row in range(len(new)):
        point = Point(new.point(row).layers, {"orthogonality": 1.0})
        claim = store.claim(study, point, "bench")
        assert claim is not None
        outcome = Outcome(State.COMPLETE, new.measurements(row) or dict.fromkeys(MEASURED, 1.0))
        begin = time.perf_counter()
        store.record(study, claim, outcome, Execution(0, BEGIN, BEGIN))
        times.append(time.perf_counter() - begin)
    return times


def measure(
    where: str, fill: Callable[[Trials, int], None], size: Callable[[], int], trials: Trials, new: Trials
) -> None:
    begin = time.perf_counter()
    with Store.open(where, create=True) as store:
        study = store.join(a_study(trials.ranks.shape[1]))
        fill(trials, study.id)
        print(f"  filled in {time.perf_counter() - begin:.0f} s, {size() / 1e9:.1f} GB")
        print(f"  {'':<46}{'median':>12}{'95 %':>12}")
        time_reading(store, study, trials)
        time_writing(store, study, new)
        if len(trials) <= CHECKED:
            print(f"  checked: {store.check(study)[:3] or 'nothing is wrong'}")

    def opened() -> None:
        with Store.open(where) as fresh:
            fresh.front(fresh.study("bench"))

    show("open, front, close", seconds(opened, 5))


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(count: int, layers: int, only: str | None, folder: Path | None) -> None:
    begin = time.perf_counter()
    trials, new = draw(count, 200, layers)
    assert hashlib.sha256(point_text(trials.ranks[0].tolist()).encode()).hexdigest() == trials.point(0).key
    print(f"{count:,} trials of {layers} layers, drawn in {time.perf_counter() - begin:.0f} s; {os.cpu_count()} cores")
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if only != "postgresql":
            path = place / f"million-{count}.sqlite"
            print(f"\nSQLite {sqlite3.sqlite_version}")
            measure(str(path), partial(fill_sqlite, path), lambda: path.stat().st_size, trials, new)
        programs = binaries()
        if only != "sqlite" and programs is not None:
            server = stack.enter_context(Server(programs, durable=True))
            url = server.create_database()
            print(f"\nPostgreSQL, {programs}")
            measure(url, partial(fill_postgresql, url), lambda: folder_size(server.folder), trials, new)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time the store at a million trials.")
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--folder", type=Path, help="keep the SQLite file here")
    chosen = parser.parse_args()
    main(chosen.trials, chosen.layers, chosen.only, chosen.folder)
