"""No file can be written where trials leave theirs: the driver waits, and says so; no trial is lost to it."""

from __future__ import annotations

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import pytest

from rank_search.point import State
from tests.faults.case import Case, wait_for
from tests.faults.conftest import Launch, MakeCase

pytestmark = pytest.mark.faults

SAID = "artifacts unwritable"
HOLD = 3.0  # seconds that it goes on after it was noticed


class Trouble(ABC):
    """What is wrong with a folder from `begin` to `end`; `keep_up` is called now and then in between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def end(self) -> None: ...

    def keep_up(self) -> None:
        return


@final
class Gone(Trouble):
    """A file is in its place: a server that is not mounted looks like this to the superuser, too."""

    def begin(self) -> None:
        self.folder.rename(self.folder.with_suffix(".gone"))
        self.folder.touch()

    def end(self) -> None:
        self.folder.unlink()
        self.folder.with_suffix(".gone").rename(self.folder)


@final
class Full(Trouble):
    """No block is free in a file system of its own."""

    def begin(self) -> None:
        self.keep_up()

    def keep_up(self) -> None:
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            try:
                while filler.write(b"\0" * 4096):
                    pass
            except OSError:
                return

    def end(self) -> None:
        (self.folder / "filler").unlink()


@final
class ReadOnly(Trouble):
    """A file system of its own is mounted anew, read-only, as the kernel does it when a disk fails."""

    def begin(self) -> None:
        wait_for(lambda: self._mount("ro"))  # it is refused while somebody writes

    def end(self) -> None:
        assert self._mount("rw")

    def _mount(self, how: str) -> bool:
        return _does("mount", "-o", f"remount,{how}", str(self.folder))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte, mounted where studies have their files."""
    folder = tmp_path / "study" / "files"
    folder.mkdir(parents=True)
    if os.geteuid() != 0 or not _does("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)):
        pytest.skip("this user may not mount a file system")
    yield folder
    assert _does("umount", "--lazy", str(folder))


def _does(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def assert_waits_for(trouble_of: Callable[[], Trouble], case: Case) -> None:
    run = case.start()
    before = case.wait_for_trials(3)
    trouble = trouble_of()
    trouble.begin()
    wait_for(lambda: trouble.keep_up() or SAID in run.printed)
    time.sleep(HOLD)
    trouble.end()
    case.assert_ends(run)
    rows = case.assert_sound(before=before)
    assert not [row for row in rows if row.state is State.FAILED]
    assert "Traceback" not in run.printed


def test_a_folder_that_is_gone_for_a_while(new_case: MakeCase, launch: Launch) -> None:
    case = new_case(launch)
    assert_waits_for(lambda: Gone(case.files), case)


@pytest.mark.parametrize("trouble", [Full, ReadOnly])
def test_a_disk_that_takes_nothing_for_a_while(small_disk: Path, new_case: MakeCase, trouble: type[Trouble]) -> None:
    assert_waits_for(lambda: trouble(small_disk), new_case({"workers": 2}))


def test_a_folder_that_stays_away_ends_the_run(new_case: MakeCase) -> None:
    case = new_case({"workers": 2, "store_patience": 2.0})
    run = case.start()
    before = case.wait_for_trials(3)
    trouble = Gone(case.files)
    trouble.begin()
    case.assert_ends(run, code=2)
    assert run.printed.count("\nrank-search: ") == 1
    assert f"In {trouble.folder}, " in run.printed
    assert "Traceback" not in run.printed
    trouble.end()
    case.finish()
    rows = case.assert_sound(before=before)
    assert not [row for row in rows if row.state is State.FAILED]
