from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.story.small import Command, Small, write_study


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, run in this process."""
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small study, finished, in a process of its own. Tests read it and leave it as it is."""
    study = write_study(tmp_path_factory.mktemp("small"))
    run = [Path(sys.executable).with_name("rank-search"), "run", study.file]
    subprocess.run(run, check=True, cwd=study.folder, capture_output=True)
    return study


@pytest.fixture
def copied(small: Small, tmp_path: Path) -> Small:
    """A copy of the finished small study, to be changed or damaged."""
    return small.copy_to(tmp_path / "copied")
