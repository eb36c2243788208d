from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from rank_search.store import Store, StudyRecord
from tests.required import do_without
from tests.store.postgres import REQUIRED, Server, programs_or_skip
from tests.store.store_tools import a_record


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A server for all tests, which none of them may stop."""
    programs = programs_or_skip()
    with ExitStack() as stack:
        try:
            server = stack.enter_context(Server(programs))
        except (OSError, subprocess.CalledProcessError) as error:
            do_without(REQUIRED, f"PostgreSQL of {programs} does not start here: {error}")
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes the URL of a database that nobody has used: a function, for each kind of database."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.sqlite'}"
    server: Server = request.getfixturevalue("postgres_server")
    return server.create_database


@pytest.fixture(scope="session")
def url(new_url: Callable[[], str]) -> str:
    return new_url()


@pytest.fixture(scope="session")
def store(url: str) -> Iterator[Store]:
    """One store for all tests: they keep out of each other's way by study."""
    with Store.open(url, create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return store.join(a_record())
