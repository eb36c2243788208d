"""What is special about a PostgreSQL server: how its connections are opened, and what it looks like when it is away."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, text

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
)


def engine(url: URL) -> Engine:
    """An engine whose connections are tried before they are used, and which notices a server that fell silent."""
    how = {name: value for name, value in _CONNECTING.items() if name not in url.query}
    unprepared = {"prepare_threshold": None}  # behind a pooler, the next transaction may be on another connection
    made = create_engine(url, connect_args=how | unprepared, pool_pre_ping=True)
    event.listen(made, "connect", _prepare)
    return made


def sounds_away(said: str) -> bool:
    """Whether a connection failed because nobody answered, at any address of the host."""
    attempts = said.split("\n- ")[1:] or [said]
    return all(any(sign in attempt for sign in _SIGNS) for attempt in attempts)


def identity(connection: Connection) -> str:
    """What no copy of a database has in common with it: the number of its cluster, and its own number there."""
    query = "SELECT system_identifier FROM pg_control_system()"
    number = "SELECT oid FROM pg_database WHERE datname = current_database()"
    return f"postgresql:{connection.scalar(text(query))}:{connection.scalar(text(number))}"


def says_not_now(engine: Engine) -> bool:
    """Whether the server answers that it is starting up or shutting down, in any language."""
    driver: Any = engine.dialect.loaded_dbapi
    _, arguments = engine.dialect.create_connect_args(engine.url)
    options = {name: value for name, value in arguments.items() if isinstance(value, str | int)}  # those of libpq
    try:
        address = driver.conninfo.make_conninfo(**{**options, "connect_timeout": _CONNECTING["connect_timeout"]})
    except driver.Error:
        return False
    return bool(driver.pq.PGconn.ping(address.encode()) == driver.pq.Ping.REJECT)


def _prepare(connection: Any, _record: Any) -> None:
    connection.execute(_ON_CONNECT)
    connection.commit()
