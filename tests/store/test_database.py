from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, inspect, text

from rank_search.errors import StoreError
from rank_search.store import Store, database, schema, tables
from tests.store.store_tools import a_point, a_record, complete, fill, finish


def test_a_store_is_made_with_its_folder_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new folder 100%" / "größe.sqlite"
    with Store.open(path, create=True) as store:
        study = store.join(a_record())
        assert store.location == str(path)
    for where in (path, str(path), f"sqlite:///{path}"):
        with Store.open(where) as store:
            assert store.study(study.name) == study
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_opening_twice_is_harmless(new_url) -> None:
    url = new_url()
    with Store.open(url, create=True) as one, Store.open(url, create=True) as two:
        study = one.join(a_record())
        assert two.study(study.name) == study


def test_a_store_may_share_a_database(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="holds no rank-search store"):
        Store.open(path)
    with Store.open(path, create=True) as store:
        assert store.studies() == []
    assert sqlite3.connect(path).execute("SELECT count(*) FROM mine").fetchone() == (0,)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "postgresql://u:s3cret@127.0.0.1:1/db?password=s3cret",
            r"postgresql://u:\*\*\*@127\.0\.0\.1:1/db could not",
        ),
        ("postgresql://u:s3cret@host:port/db", "is neither a path nor a URL"),
        ("postgres://u:s3cret@host:port/db", "is neither"),
        ("mysql://u:s3cret@h/db", "mysql://u.* is neither an SQLite file nor a PostgreSQL database"),
        ("postgresql+nodriver://u:s3cret@h/db", "asks for the driver nodriver"),
        ("sqlite://", "cannot be in memory"),
        (":memory:", "cannot be in memory"),
        ("", "cannot be in memory"),
        ("://", "is neither"),
        ("no/such/file.sqlite", "There is no store at no/such/file.sqlite"),
    ],
)
def test_a_place_that_is_no_store(where: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(where)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at: " + "x" * 200)
    for create in (False, True):
        with pytest.raises(StoreError, match=r"notes\.txt could not be read: file is not a database"):
            Store.open(path, create=create)
    with pytest.raises(StoreError, match="unable to open"):
        Store.open(tmp_path)
    with pytest.raises(StoreError, match=r"folder of the store .* cannot be made"):
        Store.open(path / "inside" / "a.sqlite", create=True)


def test_a_newer_schema_is_refused(new_url) -> None:
    url = new_url()
    Store.open(url, create=True).close()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE rs_version SET version_num = '9999'"))
    engine.dispose()
    for create in (False, True):
        with pytest.raises(
            StoreError,
            match=r"has schema 9999, .*this one knows schemas up to 0005\. Upgrade rank-search",
        ):
            Store.open(url, create=create)


def test_a_read_only_store_can_be_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store.open(path, create=True) as store:
        fill(store, store.join(a_record(name="x")), [[1, 1]])
    with Store.open(f"sqlite:///file:{path}?mode=ro&uri=true") as store:
        study = store.study("x")
        assert len(store.front(study)) == 1
        with pytest.raises(StoreError, match=r"readonly database\. It is read-only"):
            store.claim(study, a_point(), "w")


def test_a_store_in_a_read_only_folder_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "odd name?#%.sqlite"
    with Store.open(path, create=True) as store:
        fill(store, store.join(a_record(name="x")), [[1, 1]])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store.open(path) as store:
        study = store.study("x")
        assert len(store.front(study)) == 1
        assert store.location == str(path)
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
        with pytest.raises(StoreError, match="It is read-only"):
            store.claim(study, a_point(), "w")


def test_a_locked_store_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.sqlite"
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    with Store.open(path, create=True) as store:
        study = store.join(a_record())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert [*store.front(study)] == []  # readers go on
        with pytest.raises(StoreError, match=r"database is locked\. Another process has held it"):
            store.claim(study, a_point(), "w")
        other.close()
        assert store.claim(study, a_point(), "w") is not None


def test_a_full_disk_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.sqlite", create=True) as store:
        study = store.join(a_record())
        first = finish(store, study, complete(a=1, b=1))
        engine = store._database._engine
        engine.dispose()
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
        with pytest.raises(StoreError, match=r"database or disk is full\. Free some disk space"):
            fill(store, study, [[0, 0]] * 500)
        assert store.trial(study, 0).dominated_by in (None, 1)
        assert store.trial(study, 0).measurements == first.measurements
        assert store.check(study) == []


def test_an_error_of_the_caller_is_not_the_store_s(store: Store) -> None:
    with pytest.raises(KeyError), store._database.writing():
        raise KeyError("mine")


# ---- schema ------------------------------------------------------------------------------------------------


def test_the_migrations_build_the_tables_that_the_code_uses(new_url) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    url = new_url()
    Store.open(url, create=True).close()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        differences = compare_metadata(context, tables.metadata)
        assert inspect(connection).get_view_names() == ["pareto_front"]
    engine.dispose()
    assert differences == []


def test_the_newest_migration_is_the_head() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(schema._config()).get_current_head() == schema.HEAD
