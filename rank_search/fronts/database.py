"""The way to the database: one engine, one door for reading and one for writing.

Every transaction goes through a door, which turns whatever the driver raises into one `StoreError`. SQLite runs in
WAL mode and takes its write lock when a write begins, so that nobody who has read is refused when he then writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from rank_search.errors import StoreError

_BUSY_SECONDS: Final = 60
_CONNECT_SECONDS: Final = 10
_QUEUE: Final = 7_261_110_000  # any number that nothing else in the database locks
_BEGIN: Final = "rank_search_begin"
_ADVICE: Final = {
    "readonly database": "It is read-only. Make the file and its folder writable, or use another store.",
    "not a database": "The file is something else. Give the path of a store, or of a new file.",
    "malformed": "The file is damaged. Restore it from a copy.",
    "unable to open": "Check that it is a file, that its folder exists, and that you may write there.",
    "locked": f"Another process has held it for {_BUSY_SECONDS} s. Try again when that one is done.",
    "is full": "Free some disk space and run the same command again; nothing recorded before is lost.",
    "connection failed": "Check the address, and that the server is running.",
    "failed to resolve": "Check the address.",
    "timeout expired": "Check the address, and that the server is running.",
    "permission denied": "Ask the owner of the database for the right to do this.",
    "read-only transaction": "The server only lets you read. Use another store to write.",
}


@final
class Database:
    """An open database; `location` says where, without any secret."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self.location = _masked(url)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._engine = self._make_engine()
        self._reader, self._writer = self._doors()

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database that is given by a plain path."""
        plain = self.is_sqlite and self._url.database and "uri" not in self._url.query
        return Path(str(self._url.database)) if plain else None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot to read from."""
        with self._translating("read"), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: all of it is written, or nothing."""
        with self._translating("written"), self._writer.begin() as connection:
            yield connection

    def use_write_ahead_log(self) -> None:
        """Let readers and one writer of an SQLite file work at once; the file remembers it."""
        if self.is_sqlite:
            with self._translating("written"), self._engine.connect() as connection:
                connection.connection.cursor().execute("PRAGMA journal_mode = WAL")

    def queue(self, connection: Connection) -> None:
        """Wait until no other queued transaction runs: for changes that have no row to lock yet."""
        if not self.is_sqlite:  # SQLite has one writer at a time anyway
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _QUEUE})

    def close(self) -> None:
        self._engine.dispose()

    def _make_engine(self) -> Engine:
        try:
            return create_engine(_as_it_can_be_read(self._url), connect_args=self._connect_arguments())
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError(
                f"A store is an SQLite file or a PostgreSQL database. {self.location} needs a driver that is not "
                f"installed: {error}. For PostgreSQL: pip install 'rank-search[postgresql]'."
            ) from None

    def _connect_arguments(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"timeout": _BUSY_SECONDS, "isolation_level": None}
        return {"connect_timeout": _CONNECT_SECONDS}

    def _doors(self) -> tuple[Engine, Engine]:
        if not self.is_sqlite:
            return self._engine.execution_options(isolation_level="REPEATABLE READ"), self._engine
        event.listen(self._engine, "connect", _prepare_sqlite)
        event.listen(self._engine, "begin", _begin_sqlite)
        return self._engine, self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    @contextmanager
    def _translating(self, done: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            said = self._in_one_line(str(error.orig or error))
            advice = next((advice for sign, advice in _ADVICE.items() if sign in said), "")
            raise StoreError(f"The store {self.location} could not be {done}: {said}. {advice}".strip()) from None

    def _in_one_line(self, said: str) -> str:
        """What the driver said, without the password."""
        line = " ".join(said.split()).rstrip(".?! ")
        return line.replace(str(self._url.password), "***") if self._url.password else line


def locate(where: str | Path) -> URL:
    """The URL of a store given as a path or as an SQLAlchemy URL.

    Raises:
        StoreError: it is neither a file nor a PostgreSQL database.
    """
    is_path = isinstance(where, Path) or "://" not in where
    url = URL.create("sqlite", database=str(where)) if is_path else _parsed(str(where))
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("A store outlives the process, so it cannot be in memory. Give the path of a file.")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(
            f"A store is an SQLite file or a PostgreSQL database; found {_masked(url)}. "
            "Give a path, or postgresql://USER@HOST/DATABASE."
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _parsed(given: str) -> URL:
    try:
        return make_url(given.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        shown = re.sub(r"//.*@", "//***@", given)
        raise StoreError(
            f"A store is a path or a URL such as postgresql://USER:PASSWORD@HOST/DATABASE; {shown!r} is neither. "
            "Check the port, and write special characters in the password as %XX."
        ) from None


def _masked(url: URL) -> str:
    """Where a store is, without the password and without the query, which may hold one too."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(query={}, drivername=url.get_backend_name()).render_as_string(hide_password=True)


def _as_it_can_be_read(url: URL) -> URL:
    """For a file at rest in a folder that we may not write to, the URL that lets SQLite read it all the same.

    SQLite reads a file in WAL mode only if it may make files beside it, or is told that nobody changes the file.
    """
    file = Path(str(url.database))
    beside = file.with_name(file.name + "-wal")
    if url.get_backend_name() != "sqlite" or not file.is_file() or os.access(file.parent, os.W_OK) or beside.exists():
        return url
    return url.set(database=f"file:{quote(str(file.absolute()))}", query={"immutable": "1", "uri": "true"})


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -32000")  # KiB


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))
