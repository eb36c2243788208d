"""Names of drivers: each its own, and whether one is dead is said only if that is certain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rank_search.launch import driver_name as workers
from rank_search.launch import this_process
from rank_search.launch.driver_name import died_here, driver_name
from tests.launch.parts import ELSEWHERE, dead_worker


def of_process(pid: int, name: str) -> str:
    """The name of a driver that began as the one of that name, in another process."""
    host, _, birth = name.rsplit(":", 2)
    return f"{host}:{pid}:{birth}"


def test_each_start_of_a_driver_has_another_name() -> None:
    names = {driver_name() for _ in range(10)}
    assert len(names) == 10
    assert {name.rpartition(":")[0] for name in names} == {this_process()}


def test_drivers_in_two_containers_of_one_host_name_and_pid_have_different_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "worker")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    one, two = driver_name(), driver_name()
    assert one.startswith("worker:1:")
    assert two.startswith("worker:1:")
    assert one != two


def test_a_driver_whose_process_is_gone_is_dead() -> None:
    assert died_here(dead_worker())
    assert not died_here(driver_name())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "here",
        ELSEWHERE,
        f"{socket.gethostname()}:what",
        f"{socket.gethostname()}:999999999",
        f"{socket.gethostname()}:999999999:",
        f"{socket.gethostname()}:999999999:0-0-abcdef01",
        f"{socket.gethostname()}:what:0-0-abcdef01",
        ":::",
    ],
)
def test_a_name_that_says_too_little_is_of_nobody_dead(name: str) -> None:
    """As of older versions, or of a machine that does not say which it is."""
    assert not died_here(name)


def test_a_driver_of_another_boot_container_or_host_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = dead_worker()
    assert died_here(dead)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_boot", lambda: "another boot, or another namespace")
        assert not died_here(dead)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_boot", lambda: "")
        assert not died_here(dead)
        assert not died_here(driver_name())
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "clone-of-that-machine")
        assert not died_here(dead)
    assert died_here(dead)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that sleeps."""
    started = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    yield started
    started.kill()
    started.wait()


def test_a_pid_that_somebody_else_has_by_now_is_told_by_its_start(process: subprocess.Popen[bytes]) -> None:
    of_another_start = of_process(process.pid, driver_name().replace(f"-{workers._start(os.getpid())}-", "-abcdef-"))
    assert died_here(of_another_start)
    name = driver_name().replace(f"-{workers._start(os.getpid())}-", f"-{workers._start(process.pid)}-")
    alive = of_process(process.pid, name)
    assert not died_here(alive)
    os.kill(process.pid, signal.SIGSTOP)
    assert not died_here(alive), "it stands still"
    os.kill(process.pid, signal.SIGKILL)
    while workers._start(process.pid):
        continue
    assert died_here(alive), "it has ended, and its parent has not noticed"
    process.wait()
    assert died_here(alive)


def test_proc_of_another_namespace_is_not_believed(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `unshare --pid` without `--mount-proc` has it: numbers of processes mean others there."""
    other = of_process(process.pid, driver_name().replace(f"-{workers._start(os.getpid())}-", "-abcdef-"))
    boot = workers._boot()
    monkeypatch.setattr(workers, "_boot", lambda: boot)
    monkeypatch.setattr(workers, "_PROC", tmp_path)
    (tmp_path / "self").symlink_to("1234567")
    assert not died_here(other)
    process.kill()
    process.wait()
    assert died_here(other), "no such process: that is certain"


def test_a_process_of_another_user_is_alive(process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    other = of_process(process.pid, driver_name().replace(f"-{workers._start(os.getpid())}-", "-abcdef-"))

    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert not died_here(other)
    monkeypatch.undo()
