"""The tests' own PostgreSQL server, and what happens where there is none."""

from __future__ import annotations

import pytest

from rank_search.store import Store
from tests.store import postgres
from tests.store.postgres import REQUIRED, Server, programs_or_skip


def test_a_machine_without_postgresql_skips_unless_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "binaries", lambda: None)
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no PostgreSQL on this machine"):
        programs_or_skip()
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=rf"{REQUIRED} is set, and yet: no PostgreSQL on this machine"):
        programs_or_skip()


def test_a_server_leaves_nothing_behind(postgres_server: Server) -> None:
    assert postgres_server.folder.exists()
    with Server(programs_or_skip(), password="x") as other:  # on a socket, with a password
        folder = other.folder
        with Store.open(other.create_database(), create=True) as store:
            assert store.studies() == []
        other.freeze()
    assert not folder.exists()
