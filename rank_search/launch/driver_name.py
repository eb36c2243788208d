"""The names of drivers, and whether one of them is known to be dead.

A name is HOST:PID:PLACE-START-RANDOM. Containers may share the host's name and count their processes from 1, so the
place (this boot of the machine, and the namespace of process numbers) and the start of the process say which is meant.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

from rank_search.launch.executors import this_process

_UNKNOWN: Final = "0"
_PROC: Final = Path("/proc")


def driver_name() -> str:
    """A name that no other driver has, nor had, nor will have; each call makes another."""
    return f"{this_process()}:{_place()}-{_start(os.getpid())}-{secrets.token_hex(4)}"


def died_here(worker: str) -> bool:
    """Whether the driver ran where this process runs, and is certainly gone; if in doubt, it is not."""
    _, _, birth = worker.rpartition(":")
    place, *rest = birth.split("-")
    pid = worker.split(":")[-2] if worker.count(":") >= 2 else ""
    if place in ("", _UNKNOWN) or place != _place() or len(rest) != 2 or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return _UNKNOWN not in (rest[0], _start(int(pid))) and rest[0] != _start(int(pid))


def _place() -> str:
    """Stands for this boot of this machine and its namespace of process numbers; 0 where they cannot be told."""
    boot = _boot()
    return _digest(f"{boot} {this_process().rpartition(':')[0]}", 8) if boot else _UNKNOWN


def _boot() -> str:
    try:
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except (OSError, subprocess.CalledProcessError):
        return ""


def _start(pid: int) -> str:
    """Stands for when the process began; "" if it has ended and nobody has noticed; 0 where it cannot be told."""
    try:
        if (_PROC / "self").readlink() != Path(str(os.getpid())):  # it shows another namespace
            return _UNKNOWN
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _UNKNOWN
    return "" if state == "Z" else _digest(fields[18], 6)


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
