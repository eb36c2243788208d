"""Nodes of a Ray cluster on this machine, each with processes of its own, which can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from tests.faults.case import wait_for
from tests.story.forks import group

STARTED: Final = "This command will now block"


@final
class Node:
    """A node that `ray start` makes; without an address it is the head of a new cluster."""

    def __init__(self, folder: Path, cpus: int, address: str = "") -> None:
        self._output = Path(tempfile.mkstemp(dir=folder, suffix=".txt")[1])
        port = _free_port()
        self.address = address or f"127.0.0.1:{port}"
        role = ["--address", address] if address else _head(folder, port)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role]
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [*command, "--num-cpus", str(cpus), "--object-store-memory", str(10**8), "--disable-usage-stats"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        wait_for(lambda: STARTED in self._output.read_text() or self._process.poll() is not None)
        assert self._process.poll() is None, self._output.read_text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def raylet(self) -> int:
        """The process that is the node: all workers on it end with it."""
        return next(pid for pid, command in group(self._process.pid).items() if "/raylet/raylet " in command)


def _head(folder: Path, port: int) -> list[str]:
    """Its sockets are in the folder, whose path must be short."""
    client = ["--ray-client-server-port", str(_free_port())]
    return ["--head", "--port", str(port), *client, "--include-dashboard=false", "--temp-dir", str(folder)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
