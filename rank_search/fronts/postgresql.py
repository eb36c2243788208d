"""What is special about a PostgreSQL server: how its connections are opened, and when it is away.

Away means: nobody answers, the connection broke, or the server is starting up or shutting down. Whatever else it says
(a wrong password, no such database, an error in a query) is an answer, and asking again would not change it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError

# Silence is noticed after 10 + 3 × 5 s, instead of after hours; what was sent and not received, after 25 s.
_CONNECTING: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# So that the server notices it too, and lets go of what a driver had locked whose machine is gone.
_ON_CONNECT: Final = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 25000"
)
LET_GO_OF_LOCKS: Final = "SET LOCAL idle_in_transaction_session_timeout = '60s'"

_AWAY_STATES: Final = ("57P01", "57P02", "57P03")
_CONNECTION_STATES: Final = "08"
_CONFLICT_STATES: Final = ("40001", "40P01")
_SIGNS: Final = (
    "Connection refused",
    "Connection reset",
    "closed the connection",
    "failed: No such file or directory",  # the server's socket
    "timeout expired",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "Temporary failure in name resolution",
    "starting up",
    "shutting down",
    "not yet accepting connections",
    "in recovery mode",
)
_UNRESOLVED: Final = ("failed to resolve", "could not translate host name")


def engine(url: URL) -> Engine:
    """An engine whose connections are tried before they are used, and which notices a server that fell silent."""
    how = {name: value for name, value in _CONNECTING.items() if name not in url.query}
    made = create_engine(url, connect_args=how, pool_pre_ping=True)
    event.listen(made, "connect", _prepare)
    return made


def identity(connection: Connection) -> str:
    """What no copy of a database has in common with it: the number of its cluster, and its own number there."""
    query = "SELECT system_identifier FROM pg_control_system()"
    number = "SELECT oid FROM pg_database WHERE datname = current_database()"
    return f"postgresql:{connection.scalar(text(query))}:{connection.scalar(text(number))}"


def is_conflict(error: DBAPIError) -> bool:
    """Whether two transactions got into each other's way."""
    return _state(error) in _CONFLICT_STATES


def is_away(error: DBAPIError, engine: Engine, reached: bool) -> bool:
    """Whether the server was away; `reached`: it has answered before, so its name is a good one."""
    state = _state(error)
    if error.connection_invalidated or (state or "")[:2] == _CONNECTION_STATES or state in _AWAY_STATES:
        return True
    if state is not None or not isinstance(error, OperationalError):
        return False
    attempts = str(error.orig).split("\n- ")[1:] or [str(error.orig)]  # one for each address of the host
    signs = (*_SIGNS, *_UNRESOLVED) if reached else _SIGNS
    return all(any(sign in attempt for sign in signs) for attempt in attempts) or _says_not_now(engine)


def _says_not_now(engine: Engine) -> bool:
    """Whether the server answers that it is starting up or shutting down, in whatever language."""
    driver: Any = engine.dialect.loaded_dbapi
    _, arguments = engine.dialect.create_connect_args(engine.url)
    options = {name: value for name, value in arguments.items() if isinstance(value, str | int)}  # those of libpq
    try:
        address = driver.conninfo.make_conninfo(**{**options, "connect_timeout": _CONNECTING["connect_timeout"]})
    except driver.Error:
        return False
    return bool(driver.pq.PGconn.ping(address.encode()) == driver.pq.Ping.REJECT)


def _state(error: DBAPIError) -> str | None:
    """The SQLSTATE, which errors without an answer of the server lack."""
    found: str | None = getattr(error.orig, "sqlstate", None)
    return found


def _prepare(connection: Any, _record: Any) -> None:
    connection.execute(_ON_CONNECT)
    connection.commit()
