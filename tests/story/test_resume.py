"""Killed at any moment, interrupted, or run twice at once: the same command goes on, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rank_search.artifacts import ArtifactStore
from rank_search.errors import QueryError, StoreError
from rank_search.point import State
from rank_search.store import Store, TrialRow
from tests.store.postgres import programs_or_skip, server
from tests.store.store_tools import slow_front
from tests.story.forks import Death, Forks, Run, group, wait_for
from tests.story.small import Small, write_study

COUNT = 14
SLOW = {"epochs": 60}  # a trial that is trained takes a second or so
PATIENT = {"max_retries": 1000}  # a trial whose driver is killed is tried again, however often
LADDERS = {"allocations": 0, "fractions": [0.5, 0.25], "weakenings": [1.0]}
SAMPLERS: Mapping[str, dict[str, Any]] = {
    "auto": {"sampler": "auto", "seeds": {"allocations": 4}},
    "tpe": {"sampler": "tpe", "seeds": LADDERS},
    "nsga2": {"sampler": "nsga2", "options": {"population_size": 4}, "seeds": LADDERS},
}


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("printed")) as started:
        yield started


def quick_study(folder: Path, sampler: str = "tpe", **changes: dict[str, Any]) -> Small:
    """A study of a network that is not trained, so that a run begins at once."""
    tables = {"study": {"trials": COUNT}, "task": {"factory": "faulty.py:sound"}, "launch": PATIENT}
    return write_study(folder, search=SAMPLERS[sampler], **{**tables, **changes})


def by_number(rows: list[TrialRow]) -> list[TrialRow]:
    return sorted(rows, key=lambda row: row.number)


def trials(small: Small) -> list[TrialRow]:
    """All finished trials; none if there is no study yet."""
    try:
        with Store.open(small.store) as store:
            return by_number(store.trials(store.study("stripes")))
    except (StoreError, QueryError):
        return []


def claims(small: Small) -> dict[int, tuple[str, str]]:
    """Worker and point of each trial in flight, by number."""
    try:
        with Store.open(small.store) as store:
            return {each.number: (each.worker, each.point.key) for each in store.claims(store.study("stripes"))}
    except (StoreError, QueryError):
        return {}


def found(rows: list[TrialRow]) -> list[tuple[Any, ...]]:
    """What a search found, without when and where."""
    return [(row.number, row.point_json, row.state, row.sampler_json, searched(row), row.rng_seed) for row in rows]


def searched(row: TrialRow) -> dict[str, float]:
    return {name: value for name, value in row.measurements.items() if not name.startswith("test_")}


def assert_sound(small: Small, count: int, store_url: str = "", artifacts: Path | None = None, seeds: int = 5) -> None:
    """So many trials, each once, with their front and the files of its members, and nothing else."""
    folder = artifacts or small.artifacts
    with Store.open(store_url or small.store) as store:
        study = store.study("stripes")
        rows, front = by_number(store.trials(study)), store.front(study)
        assert store.claims(study) == []
        assert store.check(study, ArtifactStore(folder)) == []
    assert [row.number for row in rows] == list(range(count))
    assert len({row.point.key for row in rows}) == count
    labels = [label for row in rows if (label := row.sampler["label"]) not in (*SAMPLERS, "random")]
    assert len(labels) == len(set(labels)) >= seeds, "each seed point is asked once"
    complete = [row for row in rows if row.state is State.COMPLETE]
    brute = slow_front([list(row.losses.values()) for row in complete])
    assert {row.number for row in front} == {complete[place].number for place in brute}
    kept = {artifact.location for row in rows for artifact in row.artifacts}
    assert {path.name for path in folder.iterdir() if path.is_file()} == kept
    assert {row.number for row in rows if row.artifacts} == {row.number for row in front}
    assert "test_error" in study.dense
    assert all("test_error" in row.measurements for row in front)


@pytest.fixture(scope="module")
def uninterrupted(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[TrialRow]]:
    """What each sampler finds when nothing happens."""
    results = {}
    for name in SAMPLERS:
        small = quick_study(tmp_path_factory.mktemp(name), name)
        assert forks.run("run", small.file) == 0
        assert_sound(small, COUNT)
        results[name] = trials(small)
    return results


@pytest.mark.faults
@pytest.mark.parametrize(
    ("sampler", "what", "most"),
    [
        ("auto", "launch/driver.py", 40),
        ("auto", "launch/claiming.py", 25),
        ("auto", "commit", 28),
        ("auto", "training/trainer.py", 40),
        ("tpe", "launch/driver.py", 40),
        ("tpe", "launch/study_feed.py", 60),
        ("nsga2", "store/ledger.py", 50),
        ("tpe", "commit", 28),
        ("nsga2", "execute", 150),
        ("tpe", "training/trainer.py", 32),
        ("nsga2", "rank_search/artifacts/artifact_store.py", 15),
        ("tpe", "fsync", 6),
        ("nsga2", "unlink", 5),
    ],
)
def test_killed_again_and_again_it_finds_the_same(
    forks: Forks, uninterrupted: dict[str, list[TrialRow]], tmp_path: Path, sampler: str, what: str, most: int
) -> None:
    small = quick_study(tmp_path, sampler)
    luck, deaths, before = random.Random(most), 0, []
    while code := forks.run("run", small.file, death=Death(what, luck.randint(1, most) + deaths * most // 8)):
        assert code == -signal.SIGKILL
        deaths += 1
        after = found(trials(small))
        assert after[: len(before)] == before, "a finished trial is kept as it is"
        before = after
    assert deaths >= 3
    assert_sound(small, COUNT)
    assert found(trials(small)) == found(uninterrupted[sampler])


# ---- stopped from outside --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on_and_gives_its_claim_up(forks: Forks, tmp_path: Path, number: int) -> None:
    small = quick_study(tmp_path, training=SLOW)
    run = forks.start("run", small.file)
    in_flight = wait_for_claims(small, 1)
    run.signal_group(number)
    assert run.wait() == 130
    assert_tidy_ending(run)
    assert claims(small) == {at: ("", key) for at, (_, key) in in_flight.items()}
    assert forks.run("run", small.file, "--trials", len(trials(small)) + 1) == 0
    (at, (_, key)), rows = in_flight.popitem(), trials(small)
    assert (rows[at].number, rows[at].point.key, rows[at].attempt) == (at, key, 1)
    assert_sound(small, len(rows), seeds=1)


def wait_for_claims(small: Small, count: int, after: int = 2) -> dict[int, tuple[str, str]]:
    """So many trials in flight, past the first few: these are dense or infeasible, and take no time."""
    held: dict[int, tuple[str, str]] = {}

    def there() -> bool:
        held.clear()
        held.update(claims(small))
        return len(held) == count and min(held) >= after

    wait_for(there)
    return held


def assert_tidy_ending(run: Run) -> None:
    assert "Traceback" not in run.printed
    assert run.printed.splitlines()[-1] == (
        "Interrupted; nothing finished is lost. Rerunning the command resumes 'stripes'."
    )


@pytest.mark.faults
def test_with_workers_it_is_the_same(forks: Forks, tmp_path: Path) -> None:
    """One study through all mishaps: Ctrl-C while its workers start, a killed driver, a killed worker."""
    small = quick_study(tmp_path, training=SLOW)
    command = ("run", small.file, "--workers", 2)

    run = forks.start(*command)
    in_flight = wait_for_claims(small, 2, after=0)
    run.signal_group(signal.SIGINT)
    assert run.wait() == 130
    assert_tidy_ending(run)
    assert claims(small) == {at: ("", key) for at, (_, key) in in_flight.items()}
    wait_for(lambda: not group(run.pid))

    run = forks.start(*command)
    in_flight = wait_for_claims(small, 2)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    wait_for(lambda: not group(run.pid))

    before = trials(small)
    run = forks.start(*command, "--trials", 10)
    wait_for_claims(small, 2, after=max(in_flight))
    os.kill(run.workers[0], signal.SIGKILL)
    assert run.wait() == 0
    assert_sound(small, 10)
    rows = trials(small)
    assert set(map(str, found(before))) <= set(map(str, found(rows)))
    assert {at: rows[at].point.key for at in in_flight} == {at: key for at, (_, key) in in_flight.items()}
    assert not [row for row in rows if row.state is State.FAILED]
    wait_for(lambda: not group(run.pid))


# ---- two at once -----------------------------------------------------------------------------------------


@pytest.mark.faults
def test_two_drivers_share_the_work(forks: Forks, tmp_path: Path) -> None:
    small = quick_study(tmp_path)
    runs = [forks.start("run", small.file, "--trials", 40) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert_sound(small, 40)
    assert len({row.worker for row in trials(small)}) == 2, "both have worked"


@pytest.mark.faults
def test_a_driver_takes_over_from_one_that_is_killed_beside_it(forks: Forks, tmp_path: Path) -> None:
    small = quick_study(tmp_path, training=SLOW)
    doomed, other = (forks.start("run", small.file, "--trials", 7) for _ in range(2))
    wait_for_claims(small, 2)
    os.kill(doomed.pid, signal.SIGKILL)
    assert (doomed.wait(), other.wait()) == (-signal.SIGKILL, 0)
    assert_sound(small, 7)


@pytest.mark.faults
def test_two_drivers_share_the_work_on_postgresql(forks: Forks, postgresql: str, tmp_path: Path) -> None:
    small = quick_study(tmp_path, study={"trials": 30, "store": postgresql})
    runs = [forks.start("run", small.file, folder=tmp_path) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    (folder,) = tmp_path.glob("*.artifacts/*")
    assert_sound(small, 30, store_url=postgresql, artifacts=folder)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with server(programs_or_skip()) as url:
        yield url.format(database="postgres")


# ---- what may change between runs ------------------------------------------------------------------------


def test_fewer_trials_than_there_are_is_nothing_to_do(copied: Small, forks: Forks) -> None:
    before = found(trials(copied))
    run = forks.start("run", copied.file, "--trials", 3)
    assert run.wait() == 0
    assert "Nothing to do" in run.printed
    assert found(trials(copied)) == before


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"learning_rate" = 0.005', '"learning_rate" = 0.006', "training.learning_rate"),
        ("0.95 * dense", "0.9 * dense", "search.constraints"),
        ('"exclude" = ["first"]', '"exclude" = ["last"]', "layers.exclude"),
        ('"factory" = "stripes.py:task"', '"factory" = "faulty.py:sound"', "weights"),
    ],
)
def test_another_study_under_the_same_name_is_refused(
    copied: Small, forks: Forks, old: str, new: str, named: str
) -> None:
    before = found(trials(copied))
    change(copied, old, new)
    run = forks.start("run", copied.file)
    assert run.wait() == 2
    assert named in run.printed
    assert "Traceback" not in run.printed
    assert found(trials(copied)) == before


def change(small: Small, old: str, new: str) -> None:
    text = Path(small.file).read_text(encoding="utf-8")
    assert old in text
    Path(small.file).write_text(text.replace(old, new), encoding="utf-8")


def test_how_it_is_launched_and_where_it_is_kept_may_change(forks: Forks, tmp_path: Path) -> None:
    small = quick_study(tmp_path, study={"trials": 3})
    assert forks.run("run", small.file) == 0
    moved = str(tmp_path / "moved.sqlite")
    for suffix in (".sqlite", ".artifacts"):
        Path(small.store).with_suffix(suffix).rename(Path(moved).with_suffix(suffix))
    launch = {"threads": 2, "max_retries": 5}
    quick_study(tmp_path, study={"trials": 5, "store": moved}, launch=launch)
    run = forks.start("run", small.file)
    assert run.wait() == 0, run.printed
    with Store.open(moved) as store:
        assert len(store.trials(store.study("stripes"))) == 5
