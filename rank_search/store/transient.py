"""What may pass: the one place that says after which errors of a database the same transaction is worth another try.

The server's SQLSTATE decides, or SQLite's result code. Only a connection that fails has neither. Where connections
have succeeded before, the address, the name and the password are good ones, so that any failure may pass; before, words
tell a server that is away from an address that is wrong.
"""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from rank_search.store import postgresql


class Verdict(Enum):
    """What an error says of the next try."""

    FINAL = auto()
    """It will end the same way."""
    CONFLICT = auto()
    """Two transactions got into each other's way: it is likely to succeed at once."""
    AWAY = auto()
    """The database cannot be reached just now."""
    NOT_NOW = auto()
    """The database answers that it cannot do this just now: it is there."""


_CONFLICTS: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_CONNECTION: Final = "08"
_RESOURCES: Final = "53"  # too many clients, a full disk, no memory
_PASSING: Final = frozenset(
    {
        "25P03",  # the transaction was idle for too long
        "25P04",  # or took too long
        "55P03",  # a lock was not to be had
        "57014",  # the statement was cancelled, or took too long
        "57P01",  # shut down by an administrator
        "57P02",  # crashed
        "57P03",  # starting up, shutting down or recovering
        "57P05",  # the connection was idle for too long
        "58030",  # an error of the disk
    }
)
_READ_ONLY: Final = "25006"
_SAYS_NOT_NOW: Final = (
    "starting up",
    "shutting down",
    "not yet accepting connections",
    "in recovery mode",
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "no more connections allowed",
)

_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_SQLITE_PASSING: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM}
)


def verdict(error: DBAPIError, engine: Engine, reached: bool, written: bool) -> Verdict:
    """What the error says of the next try.

    `reached`, `written`: this database has been read, and written to, before: only then can it have become read-only.
    """
    if engine.dialect.name == "sqlite":
        return _of_sqlite(error, reached)
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return _of_state(state, written)
    if error.connection_invalidated:
        return Verdict.AWAY
    return _of_connecting(error, engine, reached) if isinstance(error, OperationalError) else Verdict.FINAL


def _of_state(state: str, written: bool) -> Verdict:
    if state in _CONFLICTS:
        return Verdict.CONFLICT
    if state[:2] == _CONNECTION:
        return Verdict.AWAY
    passing = state in _PASSING or state[:2] == _RESOURCES or (state == _READ_ONLY and written)
    return Verdict.NOT_NOW if passing else Verdict.FINAL


def _of_connecting(error: DBAPIError, engine: Engine, reached: bool) -> Verdict:
    said = str(error.orig)
    if any(sign in said for sign in _SAYS_NOT_NOW):
        return Verdict.NOT_NOW
    if reached or postgresql.sounds_away(said):
        return Verdict.AWAY
    return Verdict.NOT_NOW if postgresql.says_not_now(engine) else Verdict.FINAL


def _of_sqlite(error: DBAPIError, reached: bool) -> Verdict:
    """A file that can only be read stays so: no other server takes its place."""
    kind = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # the rest says more of it
    if kind in _SQLITE_BUSY:
        return Verdict.NOT_NOW
    return Verdict.AWAY if reached and kind in _SQLITE_PASSING else Verdict.FINAL
