"""The way to the database: one engine, one door for reading and one for writing.

Every transaction goes through a door, which turns all that the driver raises into one `StoreError`. SQLite runs in
WAL mode and takes its write lock when a write begins, so that nobody who has read is refused when he then writes.

A transaction that finds the database away or busy is repeated as a whole; so it is given as a function of the
connection, which changes nothing but the database. `transient` says what is worth another try.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError

from rank_search.errors import StoreAwayError, StoreError, to_install
from rank_search.store import postgresql
from rank_search.store.address import location_of, without_secrets
from rank_search.store.patience import ConflictError, NotNowError, Patience
from rank_search.store.transient import Verdict, verdict

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")

_BUSY_SECONDS: Final = 60
_QUEUE: Final = 7_261_110_000  # any number that nothing else in the database locks
_BEGIN: Final = "rank_search_begin"
_HAS_WRITTEN: Final = text("SELECT txid_current_if_assigned() IS NOT NULL")
_KINDS: Final[Mapping[Verdict, type[StoreError]]] = {
    Verdict.FINAL: StoreError,
    Verdict.CONFLICT: ConflictError,
    Verdict.AWAY: StoreAwayError,
    Verdict.NOT_NOW: NotNowError,
}
_ADVICE: Final = {
    "readonly database": "It is read-only. Make the file and its folder writable, or use another store.",
    "not a database": "The file is something else. Give the path of a store, or of a new file.",
    "malformed": "The file is damaged. Restore it from a copy.",
    "unable to open": "Check that it is a file, that its folder exists, and that you may write there.",
    "locked": f"Another process has held it for {_BUSY_SECONDS} s. Try again when that one is done.",
    "is full": "Free some disk space and run the same command again; nothing recorded before is lost.",
    "password authentication failed": "Check the user and the password.",
    "no password supplied": "Put the password into ~/.pgpass or PGPASSWORD.",
    "does not exist": "Check the name.",
    "too many clients": "Let the server take more connections (max_connections), or run fewer drivers.",
    "connection failed": "Check the address, and that the server is running.",
    "failed to resolve": "Check the address.",
    "timeout expired": "Check the address, and that the server is running.",
    "permission denied": "Ask the owner of the database for the right to do this.",
    "read-only transaction": "The server only lets you read. Use another store to write.",
}


@final
class Database:
    """An open database; `location` says where, without any secret.

    `patience` is how many seconds a transaction is repeated while the database is away.
    """

    def __init__(self, url: URL, patience: float = 0.0) -> None:
        self._url = url
        self.location = location_of(url)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._engine = self._make_engine()
        self._reader, self._writer = self._doors()
        self._patience = Patience(self.location, patience)
        self._written = False

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database that is given by a plain path."""
        plain = self.is_sqlite and self._url.database and "uri" not in self._url.query
        return Path(str(self._url.database)) if plain else None

    def identity(self) -> str:
        """What no copy of the database has in common with it: of a file its inode.

        Raises:
            StoreError: it cannot be asked.
        """
        file = self.file
        if self.is_sqlite:
            return f"sqlite:{file.stat().st_ino if file is not None and file.exists() else self.location}"
        try:
            return self.read(postgresql.identity)
        except StoreAwayError:
            raise
        except StoreError:  # a server that tells its number to few
            return self.location

    def read(
        self, ask: Callable[Concatenate[Connection, Asked], Answer], *given: Asked.args, **named: Asked.kwargs
    ) -> Answer:
        """What the function finds in one snapshot.

        Raises:
            StoreAwayError: the database is away, and patience is over.
            StoreError: it cannot be read.
        """

        def attempt() -> Answer:
            with self.reading() as connection:
                return ask(connection, *given, **named)

        return self._patience.until_done(attempt)

    def write(
        self, change: Callable[Concatenate[Connection, Asked], Answer], *given: Asked.args, **named: Asked.kwargs
    ) -> Answer:
        """What the function returns, once all that it does has been written in one transaction.

        A server that goes away while it confirms leaves open whether it has written: the function is called again
        then, and has to find out.

        Raises:
            StoreAwayError: the database is away, and patience is over.
            StoreError: it cannot be written.
        """

        def attempt() -> Answer:
            with self.writing() as connection:
                answer = change(connection, *given, **named)
                written = self._written or self._has_written(connection)
            self._written = written
            return answer

        return self._patience.until_done(attempt)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot to read from."""
        with self._translating("read"), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: all of it is written, or nothing."""
        with self._translating("written"), self._writer.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(postgresql.LET_GO_OF_LOCKS)
            yield connection

    def use_write_ahead_log(self) -> None:
        """Let readers and one writer of an SQLite file work at once; the file remembers it."""
        if self.is_sqlite:
            self._patience.until_done(self._switch_to_write_ahead_log)

    def queue(self, connection: Connection) -> None:
        """Wait until no other queued transaction runs: for changes that have no row to lock yet."""
        if not self.is_sqlite:  # SQLite has one writer at a time anyway
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _QUEUE})

    def wait_no_longer(self) -> None:
        """Have no patience from now on; whoever waits for the database is told that it is away."""
        self._patience.end()

    def close(self) -> None:
        """Let go of all connections, and wait no longer."""
        self.wait_no_longer()
        self._engine.dispose()

    def _has_written(self, connection: Connection) -> bool:
        """Whether this transaction, one for writing, did write: SQLite has begun it so."""
        return self.is_sqlite or bool(connection.scalar(_HAS_WRITTEN))

    def _switch_to_write_ahead_log(self) -> None:
        pragma = "PRAGMA journal_mode = WAL"
        with self._translating("written"), self._engine.connect() as connection:
            try:
                connection.connection.cursor().execute(pragma)  # outside of a transaction
            except sqlite3.OperationalError as error:
                raise OperationalError(pragma, None, error) from None

    def _make_engine(self) -> Engine:
        try:
            if self.is_sqlite:
                how = {"timeout": _BUSY_SECONDS, "isolation_level": None}
                return create_engine(_as_it_can_be_read(self._url), connect_args=how)
            return postgresql.engine(self._url)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError(
                f"The store {self.location} needs a driver that is not installed: {error}. "
                f"For PostgreSQL, in the folder of rank-search: {to_install('postgresql')}."
            ) from None

    def _doors(self) -> tuple[Engine, Engine]:
        if not self.is_sqlite:
            levels = ("REPEATABLE READ", "READ COMMITTED")  # who writes locks first, and reads what is there then
            reader, writer = (self._engine.execution_options(isolation_level=level) for level in levels)
            return reader, writer
        event.listen(self._engine, "connect", _prepare_sqlite)
        event.listen(self._engine, "begin", _begin_sqlite)
        return self._engine, self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    @contextmanager
    def _translating(self, done: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            said = without_secrets(str(error.orig or error), self._url)
            advice = next((advice for sign, advice in _ADVICE.items() if sign in said), "")
            message = f"The store {self.location} could not be {done}: {said}. {advice}".strip()
            found = verdict(error, self._engine, self._patience.reached, self._written)
            raise _KINDS[found](message) from None
        except OverflowError:
            raise StoreError(f"The store {self.location} could not be {done}: a number is too large for it.") from None


def _as_it_can_be_read(url: URL) -> URL:
    """For a file at rest in a folder that we may not write to, the URL that lets SQLite read it all the same.

    SQLite reads a file in WAL mode only if it may make files beside it, or is told that nobody changes the file.
    """
    file = Path(str(url.database))
    beside = file.parent / f"{file.name}-wal"
    if url.get_backend_name() != "sqlite" or not file.is_file() or os.access(file.parent, os.W_OK) or beside.exists():
        return url
    return url.set(database=f"file:{quote(str(file.absolute()))}", query={"immutable": "1", "uri": "true"})


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -32000")  # KiB


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))
