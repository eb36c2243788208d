"""No password of a store's URL appears in a table, a log, an error, or a location."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from sqlalchemy import Connection, MetaData, create_engine, select, text

from rank_search.errors import StoreError
from rank_search.point import Outcome, State
from rank_search.store import PriorRow, Store, artifact_folder, locate, location_of
from tests.store.postgres import Server, programs_or_skip
from tests.store.store_tools import a_point, a_record, complete, fill, finish, go_on, stopped

PASSWORD = "s3 cr/et'%@?#ß\\x"  # with everything that has another form in a URL
FORMS = (
    PASSWORD,
    quote(PASSWORD),
    quote(PASSWORD, safe=""),
    quote_plus(PASSWORD),
    repr(PASSWORD)[1:-1],
    "s3 cr",
    "s3%20cr",
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that asks for the password, on TCP."""
    with Server(programs_or_skip(), password=PASSWORD, tcp=True) as running:
        yield running


@pytest.fixture
def url(guarded: Server, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """A URL with the password; whatever is logged meanwhile, at whatever level, does not hold it."""
    caplog.set_level(logging.DEBUG)
    yield guarded.create_database()
    assert hidden(*(record.getMessage() for record in caplog.records))


def hidden(*texts: str) -> bool:
    return not any(form in each for form in FORMS for each in texts)


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def in_query(url: str, name: str = "password") -> str:
    """The URL with its password in the query part."""
    return url.replace(f":{quote(PASSWORD, safe='')}@", "@") + f"?{name}={quote(PASSWORD, safe='')}"


def test_a_guarded_store_works_and_holds_no_password(url: str) -> None:
    for where in (url, in_query(url)):
        with Store.open(where, create=True) as store:
            assert store.location == location_of(locate(where))
            assert hidden(store.location, repr(store))
            priors = (PriorRow("conv", "tucker2", "rank_in", 2, 9),)
            study = store.join(a_record(priors=priors))
            fill(store, study, [[1, 2], [2, 1]])
            row = finish(store, study, stopped(a=1, b=1), budget=1.0)
            go_on(store, study, row.number, Outcome(State.FAILED, reason="it raised"))
            store.claim(study, a_point(), "w")
            assert hidden(repr(study), repr(store.trials(study)), str(artifact_folder(where, study.name)))
    assert hidden(*_everything(url))


def _everything(url: str) -> Iterator[str]:
    """Every row of every table, as text."""
    engine = create_engine(locate(url))
    with engine.connect() as connection:
        found = MetaData()
        found.reflect(connection)
        assert len(found.tables) >= 9
        for table in found.tables.values():
            yield from (str(tuple(row)) for row in connection.execute(select(table)))
    engine.dispose()


@pytest.mark.parametrize("place", [str, in_query])
def test_errors_hide_the_password(url: str, place, guarded: Server) -> None:
    good = place(url)
    name = url.rpartition("/")[2]
    wrong = [
        good.replace(f"/{name}", "/no_such_database"),
        good.replace("tester", "nobody"),
        good.replace(f":{guarded.port}", ":1"),
        good.replace("127.0.0.1", "no-such-host.invalid"),
        good + ("&" if "?" in good else "?") + "sslmode=verify-full&sslrootcert=/no/such/file",
        good
        + ("&" if "?" in good else "?")
        + f"sslpassword={quote(PASSWORD)}&sslkey=/none&sslcert=/none&sslmode=require",
        good + ("&" if "?" in good else "?") + f"no_such_option={quote('x')}",
        good,  # there is no store yet
    ]
    for where in wrong:
        with pytest.raises(StoreError) as caught:
            Store.open(where)
        assert hidden(told(caught.value)), where


@pytest.mark.parametrize("place", [str, in_query])
def test_a_wrong_password_is_not_repeated(guarded: Server, place) -> None:
    wrong = "wr0ng pass@word"
    where = place(guarded.url(password=PASSWORD)).replace(quote(PASSWORD, safe=""), quote(wrong, safe=""))
    with pytest.raises(StoreError, match="Check the user and the password") as caught:
        Store.open(where, patience=60.0)
    shown = told(caught.value)
    assert wrong not in shown
    assert quote(wrong, safe="") not in shown


def test_a_missing_password_is_asked_for(guarded: Server) -> None:
    with pytest.raises(StoreError, match=r"Put the password into ~/\.pgpass or PGPASSWORD"):
        Store.open(guarded.url(password="").replace("tester:@", "tester@"))


def test_a_store_that_goes_away_does_not_tell(url: str, guarded: Server) -> None:
    with Store.open(url, create=True, patience=0.3) as store:
        study = store.join(a_record())
        guarded.stop("immediate")
        try:
            with pytest.raises(StoreError) as caught:
                finish(store, study, complete(a=1, b=1))
        finally:
            guarded.start()
        assert hidden(told(caught.value))
        finish(store, study, complete(a=1, b=1))


def test_messages_of_the_server_hide_the_password(url: str) -> None:
    """A server may quote whatever it was sent."""

    def quote_it(connection: Connection) -> None:
        escaped = PASSWORD.replace("'", "''").replace("%", "%%")
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = '{escaped}'; END $$")

    with Store.open(url, create=True) as store, pytest.raises(StoreError) as caught:
        store._database.write(quote_it)
    assert hidden(str(caught.value))
    assert "***" in str(caught.value)


# ---- where else a password may be ------------------------------------------------------------------------------


def test_the_password_may_be_in_the_environment_or_in_files(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = guarded.create_database()
    bare, name = url.replace(f":{quote(PASSWORD, safe='')}@", "@"), url.rpartition("/")[2]
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        Store.open(bare, create=True).close()
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"127.0.0.1:{guarded.port}:*:tester:{escaped}\n", encoding="utf-8")
    passfile.chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSFILE", str(passfile))
        Store.open(bare).close()
    services = tmp_path / "services.conf"
    services.write_text(
        f"[digits]\nhost=127.0.0.1\nport={guarded.port}\ndbname={name}\nuser=tester\npassword={PASSWORD}\n",
        encoding="utf-8",
    )
    with monkeypatch.context() as patch:
        patch.setenv("PGSERVICEFILE", str(services))
        with Store.open("postgresql://?service=digits") as store:
            assert store.studies() == []
            assert hidden(store.location)


# ---- TLS, as the page describes it -----------------------------------------------------------------------------


def test_a_connection_over_tls_checks_whose_server_it_is(guarded: Server, tmp_path: Path) -> None:
    url = guarded.create_database()
    mine, other = (_certificate(tmp_path / name) for name in ("mine", "other"))
    _switch_tls_on(guarded, mine)
    verified = f"{url}?sslmode=verify-full&sslrootcert="
    with Store.open(f"{verified}{mine}.crt", create=True) as store:
        query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert store._database.read(lambda connection: connection.scalar(query)) is True
    with pytest.raises(StoreError, match="certificate verify failed") as caught:
        Store.open(f"{verified}{other}.crt", patience=60.0)
    assert hidden(told(caught.value))
    with pytest.raises(StoreError, match="does not match host name"):
        Store.open(f"{verified}{mine}.crt".replace("127.0.0.1", "localhost"), patience=60.0)


def _certificate(stem: Path) -> Path:
    """A key and a certificate for 127.0.0.1, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificates of this test")
    names = ["-subj", "/CN=somebody", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", f"{stem}.key", "-out", f"{stem}.crt", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    return stem


def _switch_tls_on(server: Server, certificate: Path) -> None:
    import psycopg

    data = server.folder / "data"
    owner = data.stat()
    for kind in ("key", "crt"):
        file = data / f"server.{kind}"
        file.write_bytes(certificate.with_suffix(f".{kind}").read_bytes())
        file.chmod(0o600)
        os.chown(file, owner.st_uid, owner.st_gid)
    try:
        server.run_sql("ALTER SYSTEM SET ssl = on")
    except psycopg.Error as error:
        pytest.skip(f"this PostgreSQL was built without TLS: {error}")
    server.restart("fast")
