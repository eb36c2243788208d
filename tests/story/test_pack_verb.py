"""`rank-search pack-model` on the small study, and by the factory of its task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rank_search as rs
from rank_search.study import load_task
from tests.story.small import Command, Small, write_study


@pytest.fixture
def fresh(tmp_path: Path) -> Small:
    return write_study(tmp_path / "study")


def test_a_study_file_gives_model_and_data(command: Command, fresh: Small, tmp_path: Path) -> None:
    file = tmp_path / "small.rsz"
    answer = command.fine("pack-model", fresh.file, "--calibration", 2, "-o", file)
    assert "second" in answer.out
    assert "bits a weight" in answer.out
    task = load_task(rs.load_study(fresh.file))
    with torch.no_grad():
        error = task.evaluate(rs.load(file), task.selection())["error"]
    assert f"→ {error:g}" in answer.out


def test_a_factory_will_do_and_a_size_is_kept(
    command: Command, fresh: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh.folder)
    rows = command.fine(
        "pack-model", "stripes.py:task", "--size", 0.6, "-o", tmp_path / "small.rsz", "--format", "json"
    )
    assert [row["layer"] for row in rows.json] == ["first", "second", "last"]
    assert "bytes coded" in rows.err


def test_it_takes_the_threads_of_the_study_file(command: Command, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    task, launch = {"factory": "faulty.py:counts_threads"}, {"threads": 3}
    small = write_study(tmp_path / "study", task=task, launch=launch)
    answer = command.fine("pack-model", small.file, "-o", tmp_path / "a.rsz")
    assert "threads 3 → 3" in answer.out
    answer = command.fine("pack-model", small.file, "-o", tmp_path / "b.rsz", "--threads", 2)
    assert "threads 2 → 2" in answer.out
    assert torch.get_num_threads() == before


def test_what_is_wrong_is_said(command: Command, fresh: Small, tmp_path: Path) -> None:
    file = tmp_path / "small.rsz"
    assert "Leave one out" in command.refused("pack-model", fresh.file, "--size", 1, "--slope", 1, "-o", file)
    assert "positive number" in command.refused("pack-model", fresh.file, "--slope", -1, "-o", file)
    for size in ("nan", "inf", 0, -1):
        assert "it is a positive number" in command.refused("pack-model", fresh.file, "--size", size, "-o", file)
    assert "factory" in command.refused("pack-model", "nowhere.py:task", "-o", file)
    assert not file.exists()
    file.touch()
    assert "already exists" in command.refused("pack-model", fresh.file, "-o", file)
