"""What may pass is waited for, everything else is said at once."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError

from rank_search.errors import StoreAwayError, StoreError
from rank_search.store import Store, database, patience, postgresql
from rank_search.store.patience import ConflictError, NotNowError, Patience
from rank_search.store.transient import Verdict, verdict
from tests.store.postgres import Server, programs_or_skip
from tests.store.store_tools import a_point, a_record, complete, finish

POSTGRESQL: Any = SimpleNamespace(dialect=SimpleNamespace(name="postgresql"))


@pytest.fixture
def sqlite() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


class Said(Exception):  # noqa: N818 - stands for an exception of a driver
    """What a driver raises."""

    def __init__(self, words: str = "", **codes: object) -> None:
        super().__init__(words)
        for name, value in codes.items():
            setattr(self, name, value)


def of_server(sqlstate: str | None, words: str = "", kind: type[DBAPIError] = OperationalError) -> DBAPIError:
    return kind("SELECT 1", None, Said(words, sqlstate=sqlstate))


def of_file(code: int) -> DBAPIError:
    return OperationalError("SELECT 1", None, Said("", sqlite_errorcode=code))


# ---- one place decides -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("53300", Verdict.NOT_NOW),  # too many clients
        ("53100", Verdict.NOT_NOW),  # the disk is full
        ("57P01", Verdict.NOT_NOW),  # shut down by an administrator
        ("57P02", Verdict.NOT_NOW),
        ("57P03", Verdict.NOT_NOW),  # starting up
        ("55P03", Verdict.NOT_NOW),
        ("57014", Verdict.NOT_NOW),
        ("08006", Verdict.AWAY),
        ("08P01", Verdict.AWAY),  # what PgBouncer says when its server is away
        ("40001", Verdict.CONFLICT),
        ("40P01", Verdict.CONFLICT),
        ("28P01", Verdict.FINAL),  # a wrong password
        ("3D000", Verdict.FINAL),  # no such database
        ("42703", Verdict.FINAL),  # no such column
        ("42501", Verdict.FINAL),  # not allowed
        ("23505", Verdict.FINAL),
        ("57P04", Verdict.FINAL),  # the database was dropped
    ],
)
@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("words", ["sorry, too many clients already", "Zu viele Verbindungen", "ok"])
def test_a_server_is_judged_by_its_code_whatever_its_words(
    sqlstate: str, expected: Verdict, reached: bool, words: str
) -> None:
    assert verdict(of_server(sqlstate, words), POSTGRESQL, reached, reached) is expected


@pytest.mark.parametrize("written", [True, False])
def test_read_only_passes_only_on_a_server_that_could_be_written(written: bool, sqlite: Engine) -> None:
    """After a failover; a store that only lets read says so at once, and so does a file."""
    expected = Verdict.NOT_NOW if written else Verdict.FINAL
    assert verdict(of_server("25006"), POSTGRESQL, True, written) is expected
    assert verdict(of_file(sqlite3.SQLITE_READONLY), sqlite, True, written) is Verdict.FINAL
    assert verdict(of_file(sqlite3.SQLITE_READONLY_DBMOVED), sqlite, True, written) is Verdict.FINAL


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        ("connection failed: FATAL: sorry, too many clients already", Verdict.NOT_NOW, Verdict.NOT_NOW),
        ("FATAL: remaining connection slots are reserved for superusers", Verdict.NOT_NOW, Verdict.NOT_NOW),
        ("FATAL: the database system is starting up", Verdict.NOT_NOW, Verdict.NOT_NOW),
        ("FATAL: no more connections allowed (max_client_conn)", Verdict.NOT_NOW, Verdict.NOT_NOW),
        ("Connection refused", Verdict.AWAY, Verdict.AWAY),
        ("failed to resolve host 'db'", Verdict.FINAL, Verdict.AWAY),
        ("tut mir leid, schon zu viele Verbindungen", Verdict.FINAL, Verdict.AWAY),
        ("password authentication failed", Verdict.FINAL, Verdict.AWAY),
    ],
)
def test_a_connection_that_fails_passes_once_another_has_succeeded(
    words: str, before: Verdict, after: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "says_not_now", lambda engine: False)
    assert verdict(of_server(None, words), POSTGRESQL, False, False) is before
    assert verdict(of_server(None, words), POSTGRESQL, True, False) is after


def test_a_mistake_of_ours_does_not_pass() -> None:
    for kind in (ProgrammingError, InterfaceError):
        assert verdict(of_server(None, "no such thing", kind), POSTGRESQL, True, True) is Verdict.FINAL


@pytest.mark.parametrize(
    ("code", "before", "after"),
    [
        (sqlite3.SQLITE_BUSY, Verdict.NOT_NOW, Verdict.NOT_NOW),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Verdict.NOT_NOW, Verdict.NOT_NOW),
        (sqlite3.SQLITE_LOCKED, Verdict.NOT_NOW, Verdict.NOT_NOW),
        (sqlite3.SQLITE_FULL, Verdict.FINAL, Verdict.AWAY),
        (sqlite3.SQLITE_IOERR_WRITE, Verdict.FINAL, Verdict.AWAY),
        (sqlite3.SQLITE_CANTOPEN, Verdict.FINAL, Verdict.AWAY),
        (sqlite3.SQLITE_CORRUPT, Verdict.FINAL, Verdict.FINAL),
        (sqlite3.SQLITE_NOTADB, Verdict.FINAL, Verdict.FINAL),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, Verdict.FINAL, Verdict.FINAL),
    ],
)
def test_a_file_is_judged_by_its_code(code: int, before: Verdict, after: Verdict, sqlite: Engine) -> None:
    assert verdict(of_file(code), sqlite, False, False) is before
    assert verdict(of_file(code), sqlite, True, False) is after


# ---- waiting ---------------------------------------------------------------------------------------------------


class Clock:
    """Time passes only where somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: self.seconds))

    def tried(self, waiting: Patience, *errors: StoreError) -> list[float]:
        """When it is tried: each error once, and the last for ever."""
        moments: list[float] = []

        def act() -> None:
            moments.append(self.seconds)
            if errors:
                raise errors[min(len(moments), len(errors)) - 1]

        def wait(pause: float) -> bool:
            self.seconds += pause
            return False

        waiting._over = SimpleNamespace(wait=wait)  # type: ignore[assignment]
        began = self.seconds
        with suppress(StoreError):
            waiting.until_done(act)
        return [moment - began for moment in moments]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_patience_lasts_as_long_as_it_is_said_to(clock: Clock) -> None:
    waiting = Patience("here", 600)
    assert clock.tried(waiting, StoreAwayError("nobody answers")) == [0.0], "it is rather the address that is wrong"
    assert clock.tried(waiting) == [0.0]
    for error in (StoreAwayError("gone"), NotNowError("too many clients"), ConflictError("deadlock")):
        moments = clock.tried(waiting, error)
        assert moments[-1] == pytest.approx(600)
        assert max(later - sooner for sooner, later in pairwise(moments)) <= 2


def test_waiting_leaves_the_global_generator_of_a_trial_that_goes_on_meanwhile(clock: Clock) -> None:
    before = random.getstate()
    assert len(clock.tried(Patience("here", 600), NotNowError("starting up"))) > 100
    assert random.getstate() == before


def test_one_that_answers_is_waited_for_from_the_beginning(clock: Clock) -> None:
    assert clock.tried(Patience("here", 600), NotNowError("starting up"))[-1] == pytest.approx(600)
    moments = clock.tried(Patience("here", 600), NotNowError("starting up"), StoreAwayError("it crashed"))
    assert moments[-1] == pytest.approx(600), "whatever else it says, patience is had once"


def test_without_patience_only_conflicts_are_tried_again(clock: Clock) -> None:
    waiting = Patience("here", 0)
    clock.tried(waiting)
    assert clock.tried(waiting, StoreAwayError("gone")) == [0.0]
    assert clock.tried(waiting, ConflictError("deadlock"))[-1] == pytest.approx(10)


def test_waiting_ends_when_patience_is_ended() -> None:
    waiting, tries = Patience("here", 600), 0
    waiting.until_done(lambda: None)

    def act() -> None:
        nonlocal tries
        tries += 1
        raise StoreAwayError("gone")

    waiting.end()
    with pytest.raises(StoreAwayError):
        waiting.until_done(act)
    assert tries == 1
    assert waiting.until_done(lambda: 7) == 7


# ---- files -----------------------------------------------------------------------------------------------------


def test_a_file_that_another_process_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.01)
    path = tmp_path / "store.sqlite"
    with Store.open(path, create=True, patience=600) as store:
        study = store.join(a_record())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        pauses: list[float] = []

        def let_go(pause: float) -> bool:
            pauses.append(pause)
            if len(pauses) == 3:
                other.rollback()
            return False

        monkeypatch.setattr(store._database._patience._over, "wait", let_go)
        with caplog.at_level(logging.WARNING, "rank_search"):
            assert store.claim(study, a_point(), "w") is not None
        assert len(pauses) == 3
        other.close()
    went, came = (each.getMessage() for each in caplog.records)
    assert "database is locked" in went
    assert went.endswith("Trying again for up to 600 s.")
    assert "is back after" in came


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "store.sqlite", create=True, patience=600) as store:
        study = store.join(a_record())
        first = finish(store, study, complete(a=1, b=1))

        def limit(pages: int) -> None:
            with store._database.reading() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        pauses: list[float] = []

        def make_room(pause: float) -> bool:
            pauses.append(pause)
            if len(pauses) == 2:
                limit(10**6)
            return False

        monkeypatch.setattr(store._database._patience._over, "wait", make_room)
        limit(1)
        big = {"label": "x" * 10**6}
        claim = store.claim(study, a_point(), "w", big)
        assert claim is not None
        assert len(pauses) == 2
        assert [row.id for row in store.trials(study)] == [first.id]
        assert store.check(study) == []


# ---- a server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that takes few connections, and that these tests may turn away from."""
    with Server(programs_or_skip(), tcp=True) as running:
        running.stop()
        running.start("-c max_connections=6 -c superuser_reserved_connections=0 -c max_wal_senders=0")
        yield running


def _full_house(server: Server) -> list[Any]:
    """All connections that are left."""
    import psycopg

    taken: list[Any] = []
    while True:
        try:
            taken.append(psycopg.connect(server.url(), autocommit=True))
        except psycopg.OperationalError as error:
            assert "too many clients" in str(error)  # noqa: PT017
            return taken


def _waiting(store: Store, monkeypatch: pytest.MonkeyPatch, then: Any) -> list[float]:
    pauses: list[float] = []

    def wait(pause: float) -> bool:
        pauses.append(pause)
        if len(pauses) == 3:
            then()
        return False

    monkeypatch.setattr(store._database._patience._over, "wait", wait)
    return pauses


def test_too_many_clients_are_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(server.create_database(), create=True, patience=600) as store:
        study = store.join(a_record())
        store._database._engine.dispose()
        taken = _full_house(server)
        pauses = _waiting(store, monkeypatch, lambda: [each.close() for each in taken])
        assert finish(store, study, complete(a=1, b=1)).number == 0
        assert len(pauses) >= 3


def test_too_many_clients_are_waited_for_from_the_beginning(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.create_database()
    Store.open(url, create=True).close()
    taken = _full_house(server)
    with pytest.raises(StoreAwayError, match=r"too many clients already\. Let the server take more"):
        Store.open(url)
    pauses: list[float] = []

    def wait(pause: float) -> bool:
        pauses.append(pause)
        for each in taken if len(pauses) == 3 else ():
            each.close()
        return False

    event = SimpleNamespace(wait=wait, set=lambda: None)
    monkeypatch.setattr(patience, "threading", SimpleNamespace(Lock=threading.Lock, Event=lambda: event))
    Store.open(url, patience=600).close()
    assert len(pauses) >= 3


def test_a_server_that_became_read_only_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.create_database()
    name = url.rpartition("/")[2]
    with Store.open(url, create=True, patience=600) as store:
        study = store.join(a_record())

        def become(read_only: str) -> None:
            server.run_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = {read_only}")
            store._database._engine.dispose()

        become("on")
        pauses = _waiting(store, monkeypatch, lambda: become("off"))
        assert finish(store, study, complete(a=1, b=1)).number == 0
        assert len(pauses) >= 3
        become("on")
        with Store.open(url, patience=600) as other, pytest.raises(StoreError, match="only lets you read") as caught:
            other.set_target(other.study(study.name), 7)
        assert not isinstance(caught.value, StoreAwayError), "it never let write, as far as can be seen from there"


def test_a_shutdown_in_the_middle_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.create_database()
    name = url.rpartition("/")[2]
    with Store.open(url, create=True, patience=600) as store:
        study = store.join(a_record())
        tries: list[int] = []

        def change(connection: Connection) -> int:
            tries.append(1)
            if len(tries) == 1:
                ending = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
                server.run_sql(ending)
            connection.execute(text("UPDATE rs_study SET target = 3"))
            return len(tries)

        assert store._database.write(change) == 2
        assert store.study(study.name).target == 3
