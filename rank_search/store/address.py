"""Addresses of stores, and the secrets in them, which are shown to nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from rank_search.basics import MASK, is_secret, masked
from rank_search.errors import StoreError

_DRIVER: Final = "postgresql+psycopg"
_HOST: Final = re.compile(r"[\w.:,-]*")


def locate(where: str | Path) -> URL:
    """The URL of a store given as a path or as an SQLAlchemy URL.

    Raises:
        StoreError: it is neither a file nor a PostgreSQL database.
    """
    is_path = isinstance(where, Path) or "://" not in where
    url = URL.create("sqlite", database=str(where)) if is_path else _parsed(str(where))
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("A store cannot be in memory: it outlives the process. Give the path of a file.")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(
            f"{location_of(url)} is neither an SQLite file nor a PostgreSQL database. "
            "Give a path, or postgresql://USER@HOST/DATABASE."
        )
    return url if url.get_backend_name() == "sqlite" else _with_driver(url)


def _with_driver(url: URL) -> URL:
    if url.drivername not in ("postgresql", _DRIVER):
        raise StoreError(
            f"{location_of(url)} asks for the driver {url.get_driver_name()}; a PostgreSQL store uses psycopg. "
            "Leave the driver out: postgresql://USER@HOST/DATABASE."
        )
    return url.set(drivername=_DRIVER)


def location_of(url: URL) -> str:
    """Where a store is, without the password and without the query, which may hold one too."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(query={}, drivername=url.get_backend_name()).render_as_string(hide_password=True)


def without_secrets(said: str, url: URL) -> str:
    """What a driver said, in one line, with every form of the URL's secrets hidden."""
    return masked(" ".join(said.split()).rstrip(".?! "), _secrets(url))


def _secrets(url: URL) -> Iterator[str]:
    """The passwords, in whichever part of the URL."""
    queried = (value for name in url.query if is_secret(name) for value in _as_many(url.query[name]))
    yield from (str(each) for each in (url.password, *queried) if each)


def _as_many(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _parsed(given: str) -> URL:
    try:
        url = make_url(given.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        raise _no_url(given) from None
    if not _HOST.fullmatch(url.host or ""):  # the rest of a password with an @ in it
        raise _no_url(given)
    return url


def _no_url(given: str) -> StoreError:
    """Shows the host only where there is no doubt which part that is."""
    scheme, _, rest = given.partition("://")
    is_plain = rest.count("@") == 1 and not set("?#") & set(rest)
    shown = f"{scheme}://{MASK}@{rest.rpartition('@')[2]}" if is_plain else f"{scheme}://{MASK}"
    return StoreError(
        f"{shown!r} is neither a path nor a URL such as postgresql://USER:PASSWORD@HOST/DATABASE. "
        "Check the port, and write special characters in the password as %XX."
    )
