"""PgBouncer in transaction mode between a store and its server.

A machine without the program skips such tests, unless RANK_SEARCH_REQUIRE_PGBOUNCER is set: then they fail.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.required import do_without
from tests.store.postgres import Server, _free_port, _harmless_user

REQUIRED: Final = "RANK_SEARCH_REQUIRE_PGBOUNCER"

_CONFIGURATION: Final = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 3
auth_type = trust
auth_file = {folder}/users
"""


def program_or_skip() -> str:
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/sbin")
    if found is None:
        do_without(REQUIRED, "no pgbouncer on this machine")
    return found


@contextmanager
def pooled(server: Server) -> Iterator[int]:
    """The port where connections of the server are pooled."""
    program, port, user = program_or_skip(), _free_port(), _harmless_user()
    folder = Path(tempfile.mkdtemp(prefix="rs-pgb-"))
    try:
        (folder / "ini").write_text(_CONFIGURATION.format(server=server.port, port=port, folder=folder))
        (folder / "users").write_text('"tester" ""\n')
        for path in (folder, *folder.iterdir()) if user else ():
            shutil.chown(path, user)
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([program, folder / "ini"], user=user, cwd="/", stdout=quiet, stderr=quiet)
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("pgbouncer does not start")
