"""Brings a database to the schema of this version, once.

Alembic is imported only when there is something to do: it takes as long to import as a whole query.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from rank_search.errors import StoreError, to_install
from rank_search.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

HEAD: Final = "0005"
VERSION_TABLE: Final = "rs_version"


def prepare(database: Database, create: bool) -> None:
    """See that the database has the schema of this version; make or upgrade it where needed.

    Raises:
        StoreError: there is no store and `create` is false, or it was written by a newer version.
    """
    found = database.read(version)
    if found is None and not create:
        raise StoreError(f"{database.location} holds no rank-search store. Check the path; `run` makes a store.")
    if found != HEAD:
        database.use_write_ahead_log()
        database.write(_bring_up_to_date, database)


def version(connection: Connection) -> str | None:
    """The revision of the schema in the database, `None` if there is none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    return None if found is None else str(found)


def _bring_up_to_date(connection: Connection, database: Database) -> None:
    from alembic import command

    database.queue(connection)
    config = _config()
    _require_known(version(connection), config, database.location)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def _require_known(found: str | None, config: Config, location: str) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"{location} has schema {found}, which a newer version wrote; this one knows schemas up to {HEAD}. "
            f"Upgrade rank-search, in its folder: {to_install()}"
        )
