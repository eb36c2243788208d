"""A real Ray head on free ports, with a token, and `rank-search submit` as a process that talks to it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
SECONDS = 180.0


@dataclass(frozen=True)
class Head:
    """Where its dashboard is, the token, and the store that its environment names."""

    address: str
    token: str
    store: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs, and nothing of Ray's from ours."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RANK_SEARCH_"))}
        return ours | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def submit(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """`rank-search submit` to this head, running."""
        words = [str(PROGRAMS / "rank-search"), "submit", *map(str, arguments), "--address", self.address]
        pipe = subprocess.PIPE
        environment = {**self.environment, **environment}
        return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def ray_job(self, verb: str, id: str) -> str:
        """What Ray's own command says about a job."""
        words = [str(PROGRAMS / "ray"), "job", verb, "--address", self.address, id]
        result = subprocess.run(
            words, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
        )
        return result.stdout

    def wait_for(self, id: str, status: str) -> None:
        """Wait until a job has this status, in capitals."""
        deadline = time.monotonic() + SECONDS
        while status not in (said := self.ray_job("status", id)).upper():
            assert time.monotonic() < deadline, said
            time.sleep(1.0)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running_head(folder: Path) -> Iterator[Head]:
    """Start a head, and end it with everything that it started."""
    port = _free_port()
    head = Head(f"http://127.0.0.1:{port}", secrets.token_hex(16), str(folder / "from-environment.sqlite"))
    path = os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", "")])
    environment = head.environment | {"PATH": path, "OMP_NUM_THREADS": "1", "RANK_SEARCH_STORE": head.store}
    scratch = tempfile.mkdtemp(prefix="rs-head-", dir="/tmp")  # its sockets need a short path
    words = [str(PROGRAMS / "ray"), "start", "--head", "--block", "--port=0", "--num-cpus=2", f"--temp-dir={scratch}"]
    words += [f"--dashboard-port={port}", f"--ray-client-server-port={_free_port()}", "--dashboard-agent-listen-port=0"]
    words += ["--object-store-memory=100000000", "--disable-usage-stats"]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_listens(port, process, folder / "head.log")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
