"""Servers as others set them up: behind a pooler, with a schema of one's own, by another clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from rank_search.observe import status_of
from rank_search.store import Store, moments
from tests.store.pooler import pooled
from tests.store.postgres import Server, programs_or_skip
from tests.store.store_tools import a_point, a_record, anybody_else, complete, fill, finish, numbers, record, stopped

AHEAD = timedelta(hours=2)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(programs_or_skip(), tcp=True) as running:
        yield running


# ---- a pooler --------------------------------------------------------------------------------------------------


def test_a_store_behind_a_pooler_in_transaction_mode(server: Server) -> None:
    """Each transaction may be on another connection of the server; every statement is said often."""
    with pooled(server) as port:
        url = server.create_database().replace(f":{server.port}/", f":{port}/")
        with Store.open(url, create=True, patience=60) as one, Store.open(url, patience=60) as two:
            study = one.join(a_record())
            errors: list[BaseException] = []

            def work(store: Store, worker: str) -> None:
                try:
                    for _ in range(15):
                        claim = store.claim(study, a_point(), worker)
                        assert claim is not None
                        assert store.heartbeat(study, [claim]) == []
                        record(store, study, claim, complete(a=claim.number % 7, b=-claim.number % 5))
                        store.front(study)
                except BaseException as error:
                    errors.append(error)
                    raise

            threads = [
                threading.Thread(target=work, args=(store, f"{store}{place}"))
                for store in (one, two)
                for place in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            assert sorted(numbers(one.trials(study))) == list(range(60))
            row = finish(one, study, stopped(a=1, b=1), budget=1.0)
            assert two.promote(study, row.number, "w", 2.0) is not None
            assert two.take_over(study, "v", anybody_else("v")) is not None
            assert two.check(study) == []


# ---- a schema of one's own -------------------------------------------------------------------------------------


def test_a_database_holds_a_store_in_each_schema(server: Server) -> None:
    url = server.create_database()
    with Store.open(url, create=True) as store:
        store._database.write(lambda connection: connection.execute(text("CREATE SCHEMA mine")))
        fill(store, store.join(a_record(name="x")), [[1, 1]])
    mine = f"{url}?options=-csearch_path%3Dmine"
    with Store.open(mine, create=True) as store:
        assert store.studies() == []
        study = store.join(a_record(name="x"))
        fill(store, study, [[1, 1], [2, 0]])
        assert store.check(study) == []
    for where, count in ((url, 1), (mine, 2)):
        with Store.open(where) as store:
            assert len(store.front(store.study("x"))) == count


# ---- clocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [AHEAD, -AHEAD])
def test_moments_are_by_the_clock_of_the_server(
    server: Server, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    seconds = ahead.total_seconds()
    clock = text(f"SELECT clock_timestamp() AT TIME ZONE 'UTC' + interval '{seconds} seconds' AS moment")
    monkeypatch.setattr(moments, "_CLOCK", clock)
    with Store.open(server.create_database(), create=True) as store:
        before = datetime.now(UTC) + ahead - timedelta(minutes=1)
        study = store.join(a_record())
        claim = store.claim(study, a_point(), "w")
        assert claim is not None
        store.heartbeat(study, [claim])
        (held,) = store.claims(study)
        now = store.now()
        assert before <= study.created <= claim.started <= held.heartbeat <= now <= before + timedelta(minutes=10)
        found = status_of(store, study.name, timedelta(minutes=10))
        assert [driver.alive for driver in found.drivers] == [True]
        assert 0 <= found.seconds_since(held.heartbeat) < 600  # type: ignore[operator]


def test_a_server_says_what_its_clock_shows_whatever_the_time_zone(server: Server) -> None:
    url = server.create_database()
    name = url.rpartition("/")[2]
    for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
        server.run_sql(f"ALTER DATABASE {name} SET timezone = '{zone}'")
        with Store.open(url, create=True) as store:
            assert abs(store.now() - datetime.now(UTC)) < timedelta(minutes=5)
