"""Trainings whose process is killed: the same command, or another driver, goes on from their newest checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from rank_search.artifacts import Recovery
from rank_search.launch import LaunchSettings
from tests.story.forks import Death, Forks, group, wait_for
from tests.story.small import Command, Small, write_study
from tests.story.test_resume import assert_sound, found, quick_study, trials

pytestmark = pytest.mark.faults

COUNT = 8
EVERY_STEP = {"max_retries": 1000, "checkpoint_every": 1e-9}
TRAINED = {"epochs": 5}  # of two batches


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("printed")) as started:
        yield started


def study(folder: Path, **changes: dict[str, Any]) -> Small:
    return quick_study(folder, **{"study": {"trials": COUNT}, "training": TRAINED, "launch": EVERY_STEP, **changes})


@pytest.fixture(scope="module")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> list[rs.TrialRow]:
    small = study(tmp_path_factory.mktemp("undisturbed"), launch={"checkpoint_every": 0})
    assert forks.run("run", small.file) == 0
    return trials(small)


def events(log: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == event]


def left(small: Small) -> dict[str, float]:
    """The recovery checkpoints that are there: the epoch of each."""
    names = [path.name for path in small.artifacts.iterdir()] if small.artifacts.is_dir() else []
    return {name: each.epochs for name in names if (each := Recovery.named(name))}


@pytest.mark.parametrize(
    ("what", "most"), [("training/keeping.py", 30), ("fsync", 40), ("artifacts/recoveries.py", 60)]
)
def test_killed_again_and_again_it_finds_the_same(
    forks: Forks, undisturbed: list[rs.TrialRow], tmp_path: Path, what: str, most: int
) -> None:
    """Before, in the middle of, and after the writing of a checkpoint."""
    small, log, luck, deaths = study(tmp_path / "study"), tmp_path / "log.jsonl", random.Random(most), 0
    while code := forks.run("run", small.file, "--log", log, death=Death(what, luck.randint(9, most) + 10 * deaths)):
        assert code == -signal.SIGKILL
        deaths += 1
    assert deaths >= 2
    assert found(trials(small)) == found(undisturbed)
    assert_sound(small, COUNT, seeds=1)
    went_on = events(log, "trial goes on")
    assert went_on
    assert all(0 < each["epoch"] <= TRAINED["epochs"] for each in went_on)


def test_workers_and_drivers_are_killed(forks: Forks, tmp_path: Path) -> None:
    """A worker, then its driver while another one is at work: the other takes the trials over where they were."""
    long = {"study": {"trials": 4}, "training": {"epochs": 200}}  # seed points: no sampler depends on who was first
    small, log = study(tmp_path / "study", **long), tmp_path / "log.jsonl"
    calm = study(tmp_path / "calm", **long, launch={"checkpoint_every": 0})
    first = forks.start("run", small.file, "--workers", 2, "--log", log)
    wait_for(lambda: in_the_middle(small) == 2)
    os.kill(first.workers[0], signal.SIGKILL)
    wait_for(lambda: bool(events(log, "trial goes on")) and in_the_middle(small) > 0)
    first.signal_group(signal.SIGSTOP)  # or it might be done before the other one is at work
    second = forks.start("run", small.file, "--log", log)
    wait_for(lambda: len(events(log, "study joined")) == 2)
    os.kill(first.pid, signal.SIGKILL)
    first.signal_group(signal.SIGCONT)
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0, second.printed
    wait_for(lambda: not group(first.pid))
    assert forks.run("run", calm.file) == 0
    assert found(trials(small)) == found(trials(calm))
    assert forks.run("run", small.file) == 0  # sweeps up what a worker may have written when its driver was gone
    assert left(small) == {}


def in_the_middle(small: Small) -> int:
    """How many points have left a checkpoint in the first half of their training."""
    return len({name.partition("-")[0] for name, epochs in left(small).items() if epochs < 100})


def interrupted(forks: Forks, folder: Path) -> Small:
    """Killed in its third training, which has left a checkpoint."""
    small = study(folder)
    assert forks.run("run", small.file, death=Death("training/keeping.py", 60)) == -signal.SIGKILL
    assert len(left(small)) == 1
    return small


def test_status_says_from_where_it_goes_on(forks: Forks, tmp_path: Path, command: Command) -> None:
    small = interrupted(forks, tmp_path / "study")
    (epoch,) = left(small).values()
    rows = command.fine("status", small.store, "stripes", "--format", "json").json
    assert [row["goes_on_from"] for row in rows if "goes_on_from" in row] == [epoch]


def test_without_further_checkpoints_it_goes_on_from_the_one_that_was_left(
    forks: Forks, undisturbed: list[rs.TrialRow], tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    interrupted(forks, tmp_path / "study")
    small = study(tmp_path / "study", launch={"checkpoint_every": 0})
    kept = Death("training/keeping.py", 9)  # there would be as many calls in a training
    assert forks.run("run", small.file, "--log", log, death=kept) == 0
    assert len(events(log, "trial goes on")) == 1
    assert found(trials(small)) == found(undisturbed)
    assert left(small) == {}


def test_one_of_other_code_is_not_gone_on_with(forks: Forks, tmp_path: Path) -> None:
    small, log = interrupted(forks, tmp_path / "study"), tmp_path / "log.jsonl"
    with (small.folder / "faulty.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert forks.run("run", small.file, "--log", log, "--accept-changes") == 0
    assert events(log, "trial goes on") == []
    assert len(trials(small)) == COUNT
    assert left(small) == {}


def test_it_goes_with_its_study(forks: Forks, tmp_path: Path, command: Command) -> None:
    small = interrupted(forks, tmp_path / "study")
    folder = small.artifacts
    with rs.Store.open(small.store) as store:
        record = store.study("stripes")
        store.release(record, store.claims(record))  # or the driver would have to be silent for a while
    command.fine("delete", small.store, "stripes", "--yes")
    assert not folder.exists()


def test_a_confirmation_goes_on(forks: Forks, copied: Small, small: Small, tmp_path: Path, command: Command) -> None:
    calm = small.copy_to(tmp_path / "calm")
    rs.confirm(calm.store, "stripes", epochs=2, launch=LaunchSettings(checkpoint_every=0))
    launch = write_study(copied.folder, launch=EVERY_STEP).file
    log = tmp_path / "log.jsonl"
    confirm = ("confirm", copied.store, "stripes", "--epochs", 2, "--study", launch, "--log", log)
    for calls in (20, 40):
        assert forks.run(*confirm, death=Death("training/keeping.py", calls)) == -signal.SIGKILL
    assert forks.run(*confirm) == 0
    assert len(events(log, "trial goes on")) == 2
    with rs.Store.open(calm.store) as one, rs.Store.open(copied.store) as other:
        expected, gone_on = (store.trials(store.study("stripes@2")) for store in (one, other))
    assert found(gone_on) == found(expected)
