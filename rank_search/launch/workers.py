"""The names of those who claim trials, and whether they are alive."""

from __future__ import annotations

import os
import socket


def died_here(worker: str) -> bool:
    """Whether a driver ran on this machine and its process is gone."""
    host, _, pid = worker.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
