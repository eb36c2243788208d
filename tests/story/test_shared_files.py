"""Stores that keep their files in one place: none deletes what another needs."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rank_search.artifacts import ArtifactStore, Tenant
from rank_search.store import Store, artifact_folder
from tests.story.small import Command, Small, write_study


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def folder_of(store: str | Path) -> Path:
    with Store.open(store) as opened:
        study = opened.study("stripes")
    return Path(study.artifacts or artifact_folder(store, study.folder))


def test_two_stores_with_one_place_for_files(tmp_path: Path, command: Command) -> None:
    shared = {"artifacts": str(tmp_path / "shared"), "trials": 5}
    study = write_study(tmp_path / "study", study=shared)
    command.fine("run", study.file, "--store", tmp_path / "alice.sqlite")
    left = folder_of(tmp_path / "alice.sqlite") / "left.safetensors"
    left.write_bytes(b"of a process that was killed")
    write_study(tmp_path / "study", study=shared, training={"learning_rate": 0.006})
    command.fine("run", study.file, "--store", tmp_path / "bob.sqlite")
    assert left.exists(), "it is none of bob's"
    command.fine("check", tmp_path / "alice.sqlite", "stripes")
    command.fine("check", tmp_path / "bob.sqlite", "stripes")
    assert len(list((tmp_path / "shared").iterdir())) == 2
    write_study(tmp_path / "study", study=shared)
    command.fine("run", study.file, "--store", tmp_path / "alice.sqlite", "--trials", 6)
    assert not left.exists()


def test_stores_whose_names_have_the_same_beginning(tmp_path: Path, command: Command) -> None:
    study = write_study(tmp_path / "study", study={"trials": 4})
    stores = [tmp_path / f"results.2026-11-{day}" for day in (26, 27)]
    for store in stores:
        command.fine("run", study.file, "--store", store)
    assert len({folder_of(store) for store in stores}) == 2
    for store in stores:
        command.fine("check", store, "stripes")


def test_a_copy_of_a_store_and_the_store_run_side_by_side(tmp_path: Path, command: Command) -> None:
    """Each finds what dominates trials that are on the other's front."""
    study = write_study(tmp_path / "study", study={"artifacts": str(tmp_path / "shared"), "trials": 4})
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    command.fine("run", study.file, "--store", one)
    shutil.copy(one, two)
    assert folder_of(one) == folder_of(two)
    command.fine("run", study.file, "--store", two, "--trials", 5)
    for store, count in ((one, 9), (two, 7), (one, 11), (two, 9)):
        (folder_of(one) / "left.coded").write_bytes(b"perhaps the other's")
        said = command.fine("run", study.file, "--store", store, "--trials", count).err
        assert "are used by another store too" in said
        for each in (one, two):
            command.fine("check", each, "stripes")
    assert (folder_of(one) / "left.coded").exists()


def test_what_is_newer_than_the_run_stays(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    study = write_study(tmp_path / "study", study={"trials": 3})
    command.fine("run", study.file)
    newer = study.artifacts / "newer.coded"
    (older := study.artifacts / "older.coded").write_bytes(b"")
    monkeypatch.setattr(
        "rank_search.run.open_study.measure_on_test", lambda *_, **__: newer.write_bytes(b"made while the search runs")
    )
    command.fine("run", study.file, "--trials", 4)
    assert newer.exists()
    assert not older.exists()


def test_a_study_of_an_older_store_deletes_nothing_that_it_does_not_know(copied: Small, command: Command) -> None:
    before = copied.artifacts
    with closing(sqlite3.connect(copied.store)) as connection, connection:
        connection.execute("UPDATE rs_study SET uid = ''")
    before.rename(before.parent / "stripes")
    (before.parent / "stripes" / "of-another-store.safetensors").write_bytes(b"")
    command.fine("check", copied.store, "stripes")
    command.fine("run", copied.file, "--trials", 10)
    command.fine("check", copied.store, "stripes")
    assert "of-another-store.safetensors" in names(before.parent / "stripes")


# ---- who uses a place --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "server"])
def test_only_the_last_store_deletes(tmp_path: Path, where: str) -> None:
    place = str(tmp_path / "place") if where == "folder" else f"memory://{tmp_path.name}/place"
    one, two = (ArtifactStore(place, Tenant(f"sqlite:{number}", f"/{number}.sqlite")) for number in (1, 2))
    assert one.move_in() == []
    kept = one.write("model", "some", ".bin", b"content").location
    assert two.move_in() == ["/1.sqlite"]
    assert one.move_in() == ["/2.sqlite"]
    assert not one.discard(kept)
    assert one.names() == [kept]
    again = ArtifactStore(place, Tenant("sqlite:3", "/2.sqlite"))  # restored from a copy, where it was
    assert again.move_in() == ["/1.sqlite"]
    moved = ArtifactStore(place, Tenant("sqlite:1", "/elsewhere.sqlite"))
    assert moved.move_in() == ["/2.sqlite", "/2.sqlite"]
    notes = ArtifactStore(f"{place}/stores")
    for name in notes.names():
        if b"/2.sqlite" in notes._place.get(name):
            notes.delete(name)
    assert moved.discard(kept)
    assert moved.names() == []


def test_a_copied_folder_is_another_place(tmp_path: Path) -> None:
    one = ArtifactStore(tmp_path / "one", Tenant("sqlite:1", "/one/a.sqlite"))
    one.move_in()
    kept = one.write("model", "some", ".bin", b"content").location
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    two = ArtifactStore(tmp_path / "two", Tenant("sqlite:2", "/two/a.sqlite"))
    assert two.move_in() == []
    assert two.discard(kept)
    assert one.names() == [kept]


def test_a_note_that_cannot_be_read_counts(tmp_path: Path) -> None:
    one = ArtifactStore(tmp_path, Tenant("sqlite:1", "/a.sqlite"))
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "0.json").write_text("{")
    assert one.move_in() == ["a store that cannot be told"]
    assert not one.discard("anything")
