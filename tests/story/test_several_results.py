"""A study whose trials have rows of results: run, killed, shown, packed, exported, confirmed."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rank_search.artifacts import ArtifactStore
from rank_search.point import State
from rank_search.store import Store, TrialRow
from tests.story.forks import Death, Forks
from tests.story.small import Command, Small, write_study

TRIALS = 3
TABLES = {
    "study": {"trials": TRIALS},
    "search": {
        "objectives": ["error", "macs"],
        "constraints": [],
        "orthogonality": "off",
        "entropy": "off",
        "row": 3,
        "seeds": {"dense": False, "allocations": 0, "fractions": [0.8, 0.6]},
    },
    "training": {"epochs": 0.5, "ordered": 0.5},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Small:
    small = write_study(tmp_path_factory.mktemp("rows"), **TABLES)
    assert forks.run("run", small.file) == 0
    return small


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("printed")) as started:
        yield started


def rows(small: Small, name: str = "stripes") -> list[TrialRow]:
    with Store.open(small.store) as store:
        return sorted(store.trials(store.study(name)), key=lambda row: row.number)


def members(small: Small, name: str = "stripes") -> list[TrialRow]:
    with Store.open(small.store) as store:
        return list(store.front(store.study(name)))


def found(those: list[TrialRow]) -> list[tuple[object, ...]]:
    return [
        (row.number, row.cut_of, row.point_json, row.state, row.sampler_json, row.measurements["error"], row.rng_seed)
        for row in those
    ]


def a_cut(small: Small) -> TrialRow:
    return next(row for row in members(small) if row.cut_of is not None)


def test_a_run_makes_so_many_trainings_and_their_cuts(made: Small) -> None:
    every = rows(made)
    trained, cuts = ([row for row in every if (row.cut_of is None) is own] for own in (True, False))
    assert len(trained) == TRIALS
    assert len(cuts) >= 2 * TRIALS
    assert [row.number for row in every] == list(range(len(every)))
    assert {row.cut_of for row in cuts} == {row.number for row in trained}
    by_number = {row.number: row for row in every}
    for row in cuts:
        assert row.cut_of is not None
        of = by_number[row.cut_of]
        assert row.measurements["macs"] < of.measurements["macs"]
        assert row.state is State.COMPLETE
        assert row.layer_costs
    front = members(made)
    assert any(row.cut_of is not None for row in front)
    assert all("test_error" in row.measurements for row in front), "cuts are measured on the test data, too"
    with Store.open(made.store) as store:
        study = store.study("stripes")
        assert store.check(study, ArtifactStore(made.artifacts)) == []
    kept = {each.location for row in front for each in row.artifacts}
    assert {path.name for path in made.artifacts.iterdir() if path.is_file()} == kept


@pytest.mark.parametrize("count", [40, 75])
def test_killed_while_it_records_it_finds_the_same(made: Small, forks: Forks, tmp_path: Path, count: int) -> None:
    small = write_study(tmp_path / "again", **TABLES)
    assert forks.run("run", small.file, death=Death("store/ledger.py", count)) == -signal.SIGKILL
    partial = rows(small)
    assert found(partial) == found(rows(made))[: len(partial)]
    assert len(partial) < len(rows(made))
    following = rows(made)[len(partial)]
    assert following.cut_of is None, "all of a row is there, or nothing of it"
    assert forks.run("run", small.file) == 0
    assert found(rows(small)) == found(rows(made))


def test_it_says_what_a_cut_is(made: Small, command: Command) -> None:
    row = a_cut(made)
    label = f"cut of trial {row.cut_of}"
    shown = command.fine("show", made.store, "stripes", row.number, "--format", "json").json[0]
    assert (shown["cut_of"], shown["label"]) == (row.cut_of, label)
    listed = {each["trial"]: each for each in command.fine("front", made.store, "stripes", "--format", "json").json}
    assert listed[row.number]["cut_of"] == row.cut_of
    assert all("cut_of" not in listed[each.number] for each in members(made) if each.cut_of is None)
    trials = command.fine("trials", made.store, "stripes", "--format", "json").json
    assert {each["label"] for each in trials if each["trial"] == row.number} == {label}
    (status, *_) = command.fine("status", made.store, "stripes", "--format", "json").json
    cuts = sum(each.cut_of is not None for each in rows(made))
    assert (status["finished"], status["target"], status["complete"], status["cuts"]) == (TRIALS, TRIALS, True, cuts)


def test_a_report_names_cuts(made: Small, command: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command.fine("report", made.store, "stripes", "-o", page)
    shown, cuts = page.read_text(encoding="utf-8"), len(rows(made)) - TRIALS
    assert f"cut of trial {a_cut(made).cut_of}" in shown
    assert f"{TRIALS} trials; {cuts} cuts of their models;" in shown


def test_studies_are_compared_after_as_many_trainings(made: Small, command: Command, tmp_path: Path) -> None:
    small = made.copy_to(tmp_path / "copy")
    other = write_study(tmp_path / "other", **{**TABLES, "search": {**TABLES["search"], "row": 0}})
    text = Path(other.file).read_text(encoding="utf-8").replace(other.store, small.store)
    Path(other.file).write_text(text.replace('"stripes"', '"whole"'), encoding="utf-8")
    command.fine("run", other.file)
    found = command.fine("compare", small.store, "stripes", "whole", "--format", "json").json
    assert [each["trials"] for each in found] == [TRIALS, TRIALS]
    rowed, whole = (each["hypervolume"][str(TRIALS)] for each in found)
    assert rowed > whole, "a cut is one point more for the same training"


def test_a_cut_is_exported_as_what_was_measured(made: Small, command: Command, tmp_path: Path) -> None:
    row = a_cut(made)
    command.fine("export", made.store, "stripes", row.number, "-o", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["trial"] == row.number
    assert manifest["measurements"]["error"] == row.measurements["error"]
    command.fine("pack", made.store, "stripes", row.number, "-o", tmp_path / "cut.rsz")
    assert (tmp_path / "cut.rsz").stat().st_size > 0


def test_a_confirmed_cut_is_trained_at_its_own_ranks(made: Small, command: Command, tmp_path: Path) -> None:
    small = made.copy_to(tmp_path / "copy")
    row = a_cut(small)
    command.fine("confirm", small.store, "stripes", row.number, "--epochs", "1")
    (confirmed,) = rows(small, "stripes@1")
    assert confirmed.point == row.point
    assert confirmed.cut_of is None
    assert confirmed.sampler["label"] == f"confirms {row.number}"
