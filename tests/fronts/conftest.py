from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import create_engine, text

from rank_search.fronts import Store, StudyRecord
from tests.fronts.postgres import binaries, server
from tests.fronts.store_tools import a_record

_databases = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rank-search[postgresql]'")
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL on this machine: initdb and pg_ctl were not found")
    with ExitStack() as stack:
        try:
            url = stack.enter_context(server(programs))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"PostgreSQL of {programs} does not start here: {error}")
        yield url


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Makes the URL of a database that nobody has used: a function, for each kind of database."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.sqlite'}"
    server_url = request.getfixturevalue("postgres_server")

    def new_database() -> str:
        name = f"db{next(_databases)}"
        admin = create_engine(
            server_url.format(database="postgres").replace("postgresql:", "postgresql+psycopg:"),
            isolation_level="AUTOCOMMIT",
        )
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        return server_url.format(database=name)

    return new_database


@pytest.fixture(scope="session")
def url(new_url) -> str:
    return new_url()


@pytest.fixture(scope="session")
def store(url: str) -> Iterator[Store]:
    """One store for all tests: they keep out of each other's way by study."""
    with Store.open(url, create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return store.join(a_record())
