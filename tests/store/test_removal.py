"""Studies that are deleted, or get another name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from rank_search.artifacts import ArtifactStore, Recoveries, artifacts_at
from rank_search.errors import QueryError, StoreError
from rank_search.point import Artifact, Outcome, State
from rank_search.store import Store, StudyRecord, artifact_folder, removal, tables
from tests.store.store_tools import a_point, a_record, fill, finish

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def rows(store: Store) -> dict[str, int]:
    """How many rows each table has."""

    def counted(connection: Connection) -> dict[str, int]:
        of_table = select(func.count()).select_from
        return {table.name: connection.scalar(of_table(table)) or 0 for table in tables.metadata.sorted_tables}

    return store._database.read(counted)


def a_study(store: Store, **changes: Any) -> StudyRecord:
    """With trials of which one dominates another, and one in flight that was given up."""
    study = store.join(a_record(**changes))
    fill(store, study, [(3.0, 3.0), (1.0, 1.0), (0.0, 2.0)])
    finish(store, study, Outcome(State.FAILED, reason="x"))
    claim = store.claim(study, a_point(), "gone")
    assert claim is not None
    store.release(study, [claim])
    return store.study(study.name)


def test_every_row_of_a_study_goes_and_no_other(store: Store) -> None:
    kept = a_study(store)
    before, trials = rows(store), store.trials(kept)
    gone = a_study(store)
    assert rows(store) != before
    assert store.delete(gone.name, LONG_AGO) == 4
    assert rows(store) == before
    assert store.trials(kept) == trials
    assert not store.check(kept)
    with pytest.raises(QueryError, match="no study"):
        store.study(gone.name)
    with pytest.raises(QueryError, match="no study"):
        store.delete(gone.name, LONG_AGO)


def test_a_driver_of_a_deleted_study_is_told(store: Store) -> None:
    gone = a_study(store)
    store.delete(gone.name, LONG_AGO)
    with pytest.raises(StoreError, match="not in this store"):
        store.claim(gone, a_point(), "late")
    again = a_study(store, name=gone.name)
    assert len(store.trials(again)) == 4


def test_nothing_changes_while_a_driver_is_heard_of(store: Store) -> None:
    study = a_study(store)
    assert store.claim(study, a_point(), "host:7")
    before = rows(store)
    with pytest.raises(QueryError, match="running trials, held by host:7"):
        store.delete(study.name, LONG_AGO)
    with pytest.raises(QueryError, match="running trials, held by host:7"):
        store.rename(study.name, f"{study.name} new", LONG_AGO)
    assert rows(store) == before
    assert store.study(study.name) == study
    assert store.delete(study.name, soon()) == 4  # it has been silent since


def test_a_failure_in_the_middle_leaves_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study = a_study(store)
    before = rows(store)
    real = removal._of_study

    def fails(table: Any, study_id: int) -> Any:
        if table is tables.objective:
            raise KeyError("the middle")
        return real(table, study_id)

    monkeypatch.setattr(removal, "_of_study", fails)
    with pytest.raises(KeyError):
        store.delete(study.name, LONG_AGO)
    assert rows(store) == before


def test_checkpoints_of_its_trainings_go_with_it(store: Store, tmp_path: Path) -> None:
    """Of the trial in flight, and of one that has ended, whose driver died before it could remove them."""
    study, artifacts = a_study(store), ArtifactStore(tmp_path / "files")
    (claim,), (row, *_) = store.claims(study), store.trials(study)
    for key in (claim.point.key, row.point.key, "0" * 64):
        Recoveries(artifacts, key, "mark").keep(key.encode(), 1, 0.5)
    other = artifacts.write("model", claim.point.key, ".safetensors", b"of another study, in an older store")
    store.delete(study.name, LONG_AGO, artifacts)
    assert sorted(artifacts.names()) == sorted(
        [other.location, *(name for name in artifacts.names() if name.startswith("0" * 16))]
    )
    assert len(artifacts.names()) == 2


# ---- names -------------------------------------------------------------------------------------------------


def test_a_study_and_its_confirmations_are_renamed_together(store: Store) -> None:
    name = a_study(store).name
    for other in (f"{name}@180", f"{name}@0.5", f"{name}@x", f"{name}2"):
        store.join(a_record(name=other))
    assert store.rename(name, f"new {name}", LONG_AGO) == [f"new {name}", f"new {name}@180", f"new {name}@0.5"]
    names = {each.name for each in store.studies()}
    assert {f"new {name}", f"new {name}@180", f"new {name}@0.5", f"{name}@x", f"{name}2"} <= names
    assert not {name, f"{name}@180"} & names
    assert len(store.trials(store.study(f"new {name}"))) == 4


def test_the_study_file_kept_in_the_store_has_the_new_name(store: Store) -> None:
    parts = {"study.name": "old", "weights": "00aa"}
    study = store.join(
        a_record(fingerprint=parts, space={"study": {"study": {"name": "old", "seed": 1}}, "folder": "f"})
    )
    store.rename(study.name, "its new name", LONG_AGO)
    found = store.study("its new name")
    assert found.fingerprint == {"study.name": "its new name", "weights": "00aa"}
    assert found.space == {"study": {"study": {"name": "its new name", "seed": 1}}, "folder": "f"}
    assert found.id == study.id


@pytest.mark.parametrize("new", ["", "  "])
def test_a_name_is_needed(store: Store, new: str) -> None:
    study = store.join(a_record())
    with pytest.raises(QueryError, match="is no name for a study"):
        store.rename(study.name, new, LONG_AGO)


def test_a_name_that_is_taken_is_refused_and_nothing_is_renamed(store: Store) -> None:
    study, other = a_study(store), a_study(store)
    store.join(a_record(name=f"{study.name}@2"))
    store.join(a_record(name=f"free {study.name}@2"))
    for new in (other.name, study.name, f"free {study.name}"):
        with pytest.raises(QueryError, match="already has a study"):
            store.rename(study.name, new, LONG_AGO)
    assert store.study(study.name) == study
    assert store.study(f"{study.name}@2").name


# ---- files -------------------------------------------------------------------------------------------------


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "mine.sqlite", create=True) as opened:
        yield opened


def files_of(store: Store, study: StudyRecord) -> ArtifactStore:
    return artifacts_at(study.artifacts, artifact_folder(store.location, study.folder))


def kept(store: Store, study: StudyRecord, content: bytes) -> Artifact:
    """A file of a trial on the front."""
    artifact = files_of(store, study).write("model", content.decode(), ".bin", content)
    finish(store, study, Outcome(State.COMPLETE, {"a": -1.0, "b": -1.0}, artifacts=(artifact,)))
    return artifact


def test_renamed_twice_a_study_finds_its_files_and_so_does_its_successor(file_store: Store, tmp_path: Path) -> None:
    first = file_store.join(a_record(name="digits"))
    artifact = kept(file_store, first, b"first")
    file_store.rename("digits", "old digits", soon())
    file_store.rename("old digits", "older digits", soon())
    renamed = file_store.study("older digits")
    assert files_of(file_store, renamed).read(artifact) == b"first"
    second = file_store.join(a_record(name="digits", uid="digits-0123"))
    other = kept(file_store, second, b"second")
    assert files_of(file_store, renamed).location != files_of(file_store, second).location
    assert not file_store.check(renamed, files_of(file_store, renamed))
    file_store.delete("older digits", soon(), files_of(file_store, renamed))
    assert files_of(file_store, second).read(other) == b"second"
    assert [path.read_bytes() for path in (tmp_path / "mine.artifacts").rglob("*.bin")] == [b"second"]


def test_only_files_of_its_trials_are_deleted(file_store: Store, tmp_path: Path) -> None:
    study = file_store.join(a_record(name="digits"))
    kept(file_store, study, b"mine")
    folder = tmp_path / "mine.artifacts" / "digits"
    (folder / "another's").touch()
    file_store.delete("digits", soon(), files_of(file_store, study))
    assert [path.name for path in folder.iterdir()] == ["another's"]


def test_an_empty_folder_goes_too(file_store: Store, tmp_path: Path) -> None:
    study = file_store.join(a_record(name="digits"))
    kept(file_store, study, b"mine")
    file_store.delete("digits", soon(), files_of(file_store, study))
    assert not (tmp_path / "mine.artifacts" / "digits").exists()


def test_a_renamed_store_moves_with_its_files(file_store: Store, tmp_path: Path) -> None:
    study = file_store.join(a_record(name="digits"))
    artifact = kept(file_store, study, b"mine")
    file_store.rename("digits", "new", soon())
    file_store.close()
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in tmp_path.glob("mine.*"):
        path.rename(moved / path.name)
    with Store.open(moved / "mine.sqlite") as opened:
        assert files_of(opened, opened.study("new")).read(artifact) == b"mine"
