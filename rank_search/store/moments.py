"""The database's own clock: one for all who use it, however much their machines' clocks differ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, DateTime, text

_CLOCK: Final = text("SELECT clock_timestamp() AT TIME ZONE 'UTC' AS moment").columns(moment=DateTime)


def now(connection: Connection) -> datetime:
    """The moment, in UTC. SQLite runs in this process, by this machine's clock."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = connection.scalar(_CLOCK)
    return moment.replace(tzinfo=UTC)
