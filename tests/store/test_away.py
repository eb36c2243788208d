"""A server that goes away and comes back: what was being done is done, once."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from rank_search.errors import StoreAwayError, StoreError
from rank_search.store import Claim, Store, StudyRecord, postgresql
from tests.store.postgres import Server, programs_or_skip
from tests.store.proxy import Proxy
from tests.store.store_tools import a_point, a_record, anybody_else, complete, fill, finish, numbers, record, stopped
from tests.store.test_processes import expected_front, finish_all, start

HOUR = timedelta(hours=1)
PATIENCE = 60.0  # far more than any of these tests takes


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that these tests may stop; each leaves it running."""
    with Server(programs_or_skip(), tcp=True) as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    return server.create_database()


@pytest.fixture
def patient(url: str) -> Iterator[Store]:
    with Store.open(url, create=True, patience=PATIENCE) as opened:
        yield opened


@pytest.fixture
def study(patient: Store) -> StudyRecord:
    return patient.join(a_record())


def later(seconds: float, do: Callable[[], None]) -> threading.Thread:
    def wait_and_do() -> None:
        time.sleep(seconds)
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


# ---- without patience ------------------------------------------------------------------------------------------


def test_without_patience_a_server_that_is_away_is_an_error(server: Server, url: str) -> None:
    with Store.open(url, create=True) as store:
        study = store.join(a_record())
        server.stop("immediate")
        try:
            for _ in range(2):
                with pytest.raises(StoreAwayError, match=r"could not be read: connection failed: .* Check the address"):
                    store.front(study)
            with pytest.raises(StoreAwayError):
                store.claim(study, a_point(), "w")
            with pytest.raises(StoreAwayError):
                Store.open(url)
        finally:
            server.start()
        assert [*store.front(study)] == []


def test_connections_of_before_a_restart_are_not_used_again(server: Server, url: str) -> None:
    with Store.open(url, create=True) as store:
        study = store.join(a_record())
        threads = [threading.Thread(target=store.trials, args=(study,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.restart("fast")
        assert store.claim(study, a_point(), "w") is not None
        assert [*store.front(study)] == []


# ---- what is no absence ----------------------------------------------------------------------------------------


def test_an_answer_is_not_an_absence(server: Server, url: str) -> None:
    missing = url.rpartition("/")[0] + "/no_such_database"
    with pytest.raises(StoreError, match=r"\"no_such_database\" does not exist\. Check the name") as caught:
        Store.open(missing, patience=PATIENCE)
    assert not isinstance(caught.value, StoreAwayError)
    with pytest.raises(StoreError, match="holds no rank-search store"):
        Store.open(url, patience=PATIENCE)
    with pytest.raises(StoreError, match="could not be"), Store.open(url, create=True, patience=PATIENCE) as store:
        store._database.read(lambda connection: connection.execute(text("SELECT no_such_column")))


@pytest.mark.parametrize("option", ["no_such_option=1", "sslmode=maybe", "connect_timeout=soon"])
def test_a_wrong_option_is_not_an_absence(url: str, option: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store.open(f"{url}?{option}", create=True, patience=PATIENCE)
    assert not isinstance(caught.value, StoreAwayError)


def test_one_address_that_answers_is_an_answer(server: Server, url: str) -> None:
    """As for `localhost`, where nobody listens on ::1."""
    two = url.replace("127.0.0.1", "").replace(f"@:{server.port}", "@").replace("/db", "/no_such_db")
    for hosts, ports in (("127.0.0.1,127.0.0.1", f"1,{server.port}"), ("127.0.0.1,127.0.0.1", f"{server.port},1")):
        with pytest.raises(StoreError, match="Connection refused") as caught:
            Store.open(f"{two}?host={hosts}&port={ports}", patience=PATIENCE)
        assert not isinstance(caught.value, StoreAwayError)
    with pytest.raises(StoreAwayError):
        Store.open(f"{two}?host=127.0.0.1,127.0.0.1&port=1,1")


def test_a_host_that_nobody_knows_is_not_an_absence() -> None:
    programs_or_skip()
    with pytest.raises(StoreError) as caught:
        Store.open("postgresql://tester@no-such-host.invalid/db", patience=0.0)
    assert "no-such-host.invalid" in str(caught.value)


# ---- with patience ---------------------------------------------------------------------------------------------


def test_a_server_that_comes_back_is_waited_for_and_told_of_once(
    server: Server, patient: Store, study: StudyRecord, caplog: pytest.LogCaptureFixture
) -> None:
    rows = fill(patient, study, [[1, 2], [2, 1]])
    server.stop("immediate")
    starting = later(3.0, server.start)
    with caplog.at_level(logging.WARNING, "rank_search"):
        readers = [threading.Thread(target=patient.trials, args=(study,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        third = finish(patient, study, complete(a=0, b=3))
        for reader in readers:
            reader.join()
    starting.join()
    assert patient.trials(study) == [*rows, third]
    assert patient.check(study) == []
    went, came = (each.getMessage() for each in caplog.records)
    assert went.startswith(f"The store {patient.location} could not be ")
    assert went.endswith("Trying again for up to 60 s.")
    assert came.startswith(f"The store {patient.location} is back after ")


def test_patience_ends(server: Server, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with Store.open(url, create=True, patience=0.5) as store:
        study = store.join(a_record())
        server.stop("immediate")
        try:
            with pytest.raises(StoreAwayError):
                store.front(study)
            with pytest.raises(StoreAwayError):
                store.claim(study, a_point(), "w")
        finally:
            server.start()
        assert [*store.front(study)] == []
    assert len(caplog.records) == 2


def test_a_store_that_is_closed_waits_no_longer(server: Server, patient: Store, study: StudyRecord) -> None:
    server.stop("immediate")
    try:
        closing = later(0.5, patient.close)
        with pytest.raises(StoreAwayError):
            patient.front(study)
        closing.join()
    finally:
        server.start()


def test_a_server_that_never_answered_is_not_waited_for(server: Server, url: str) -> None:
    server.stop()
    began = time.monotonic()
    with pytest.raises(StoreAwayError):
        Store.open(url, create=True, patience=3600.0)
    assert time.monotonic() - began < 600, "it is rather the address that is wrong"
    server.start()


def test_a_server_that_stands_still_is_waited_for(server: Server, patient: Store, study: StudyRecord) -> None:
    server.freeze()
    thawing = later(1.0, server.thaw)
    assert finish(patient, study, complete(a=1, b=1)).number == 0
    thawing.join()


def test_a_server_that_says_not_now_is_away(server: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever language it says so: here the words are not known."""
    Store.open(url, create=True).close()
    server.stop()
    signal_file = server.folder / "data" / "standby.signal"
    signal_file.touch()
    monkeypatch.setattr(postgresql, "_SIGNS", ())
    try:
        server.start("-c hot_standby=off")
        with pytest.raises(StoreAwayError, match="not accepting connections"):
            Store.open(url)
    finally:
        signal_file.unlink()
        server.restart("immediate")
    Store.open(url).close()


def test_a_transaction_that_is_broken_off_is_repeated_as_a_whole(
    server: Server, patient: Store, study: StudyRecord
) -> None:
    tries = []

    def change(connection: Connection, target: int) -> int:
        connection.execute(text("UPDATE rs_study SET target = coalesce(target, 0) + :more"), {"more": target})
        tries.append(target)
        if len(tries) == 1:
            server.restart("immediate")
        connection.execute(text("SELECT 1"))
        return target

    assert patient._database.write(change, 7) == 7
    assert tries == [7, 7]
    assert patient.study(study.name).target == 7


def test_conflicts_are_repeated_without_patience(server: Server, url: str) -> None:
    """Two transactions that wait for each other: PostgreSQL ends one of them."""
    with Store.open(url, create=True) as store:
        ids = [store.join(a_record()).id for _ in range(2)]
        meeting = threading.Barrier(2, timeout=30)

        def change(connection: Connection, first: int, second: int) -> None:
            query = text("UPDATE rs_study SET target = coalesce(target, 0) + 1 WHERE id = :id")
            connection.execute(query, {"id": first})
            with suppress(threading.BrokenBarrierError):
                meeting.wait()
            meeting.abort()
            connection.execute(query, {"id": second})

        threads = [
            threading.Thread(target=store._database.write, args=(change, *pair)) for pair in (ids, reversed(ids))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        targets = store._database.read(lambda connection: connection.scalars(text("SELECT target FROM rs_study")).all())
        assert targets == [2, 2]


def test_processes_record_everything_once_while_the_server_crashes_again_and_again(
    server: Server, url: str, patient: Store
) -> None:
    study = patient.join(a_record())
    ranges = {"w0": (0, 100), "w1": (50, 150)}  # what one of them has alone, it finds whenever it comes
    processes = [start("recorder", url, study.name, worker, *ranks, PATIENCE) for worker, ranks in ranges.items()]
    while len({row.worker for row in patient.trials(study)}) < len(processes):  # only who has reached it waits for it
        time.sleep(0.05)
    for _ in range(3):
        seen = len(patient.trials(study))
        while len(patient.trials(study)) < seen + 10:
            time.sleep(0.05)
        server.restart("immediate")
    given = [number for output in finish_all(processes) for number in output]
    trials, left = patient.trials(study), patient.claims(study)
    assert len(given) == len(set(given))
    assert set(given) <= set(numbers(trials))
    assert len(trials) + len(left) == 150  # an answer may have been lost: a claim, that is there all the same
    assert len(left) <= 2 * 3
    while patient.take_over(study, "heir", anybody_else("heir")) is not None:
        continue
    assert {each.worker for each in patient.claims(study)} <= {"heir"}
    assert sorted(numbers(patient.front(study))) == expected_front(patient, study)
    assert patient.check(study) == []


# ---- answers that are lost -------------------------------------------------------------------------------------


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def lossy(server: Server, url: str, patient: Store, proxy: Proxy) -> Iterator[Store]:
    """The store of `patient`, by way of the proxy."""
    assert patient.studies() == []
    with Store.open(url.replace(str(server.port), str(proxy.port)), patience=PATIENCE) as opened:
        opened.studies()
        yield opened


def mine(claim: Claim) -> bool:
    return claim.worker == "me"


def test_a_claim_whose_answer_was_lost_is_found_by_its_own_worker(lossy: Store, proxy: Proxy) -> None:
    study = lossy.join(a_record())
    proxy.lose_answer()
    assert lossy.claim(study, a_point(), "me") is None
    (lost,) = lossy.claims(study)
    assert lossy.take_over(study, "me") is None
    found, _ = lossy.take_over(study, "me", mine)
    assert (found.number, found.worker, found.attempt) == (lost.number, "me", 2)
    assert record(lossy, study, found, complete(a=1, b=1)).attempt == 2
    assert proxy.lost == 1


def test_a_take_over_whose_answer_was_lost_is_found_again(lossy: Store, proxy: Proxy) -> None:
    study = lossy.join(a_record())
    assert lossy.claim(study, a_point(), "old") is not None
    proxy.lose_answer(2)  # it looks first, and then takes
    assert lossy.take_over(study, "me", anybody_else("me")) is None
    found, _ = lossy.take_over(study, "me", mine)
    assert lossy.claims(study) == [found]
    assert proxy.lost == 1


def test_a_promotion_whose_answer_was_lost_is_found_again(lossy: Store, proxy: Proxy) -> None:
    study = lossy.join(a_record())
    row = finish(lossy, study, stopped(a=1, b=1), budget=1.0)
    proxy.lose_answer()
    assert lossy.promote(study, row.number, "me", 2.0) is None
    found, _ = lossy.take_over(study, "me", mine)
    assert (found.number, found.budget) == (row.number, 2.0)
    assert record(lossy, study, found, complete(a=1, b=1)).earlier == {1.0: {"a": 1.0, "b": 1.0}}
    assert proxy.lost == 1


def test_other_answers_that_are_lost_change_nothing(lossy: Store, proxy: Proxy) -> None:
    wanted = a_record()
    proxy.lose_answer()
    study = lossy.join(wanted)
    assert study == replace(wanted, id=study.id, created=study.created)
    claim = lossy.claim(study, a_point(), "me")
    assert claim is not None
    proxy.lose_answer()
    row = record(lossy, study, claim, complete(a=1, b=1))
    proxy.lose_answer()
    assert lossy.amend(study, row.number, {"test_error": 1.0}).measurements == {"a": 1.0, "b": 1.0, "test_error": 1.0}
    proxy.lose_answer()
    lossy.set_target(study, 12)
    assert lossy.study(study.name).target == 12
    assert (len(lossy.trials(study)), lossy.claims(study), lossy.check(study)) == (1, [], [])
    assert proxy.lost == 4


# ---- silence ---------------------------------------------------------------------------------------------------


def test_both_ends_notice_silence_within_half_a_minute(patient: Store) -> None:
    def limits(connection: Connection) -> list[object]:
        names = ("idle", "interval", "count")
        shown = [connection.scalar(text(f"SHOW tcp_keepalives_{name}")) for name in names]
        shown.append(connection.scalar(text("SHOW tcp_user_timeout")))
        handle = socket.socket(fileno=connection.connection.driver_connection.fileno())
        try:
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            shown += [handle.getsockopt(socket.IPPROTO_TCP, option) for option in options]
            shown.append(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        finally:
            handle.detach()
        return shown

    assert patient._database.read(limits) == ["10", "5", "3", "25000", 10, 5, 3, 25000, 1]


def test_a_driver_that_falls_silent_with_a_lock_loses_it(patient: Store) -> None:
    show = text("SHOW idle_in_transaction_session_timeout")
    assert patient._database.write(lambda connection: connection.scalar(show)) == "1min"
    assert patient._database.read(lambda connection: connection.scalar(show)) == "0"


def test_options_of_the_url_win(url: str) -> None:
    with Store.open(f"{url}?keepalives_idle=77", create=True) as store:
        found = store._database.read(
            lambda connection: connection.connection.driver_connection.info.get_parameters()["keepalives_idle"]
        )
    assert found == "77"


# ---- SQLite ----------------------------------------------------------------------------------------------------


def test_patience_changes_nothing_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store at"):
        Store.open(tmp_path / "none.sqlite", patience=PATIENCE)
    with Store.open(tmp_path / "new.sqlite", create=True, patience=PATIENCE) as store:
        study = store.join(a_record())
        assert fill(store, study, [[1, 1]]) == [*store.front(study)]
    (tmp_path / "notes.txt").write_text("no database, but long enough to look at: " + "x" * 200)
    with pytest.raises(StoreError, match="file is not a database") as caught:
        Store.open(tmp_path / "notes.txt", patience=PATIENCE)
    assert not isinstance(caught.value, StoreAwayError)
