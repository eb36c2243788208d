from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rank_search as rs
from tests.story.small import Command, Small, write_study


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, run in this process."""
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small study, finished. Tests read it and leave it as it is."""
    study = write_study(tmp_path_factory.mktemp("small"))
    assert rs.run_study(rs.load_study(study.file)).complete
    return study


@pytest.fixture
def copied(small: Small, tmp_path: Path) -> Small:
    """A copy of the finished small study, to be gone on with, or damaged."""
    return small.copy_to(tmp_path / "copied")
