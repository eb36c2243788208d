"""Paths, terminals and languages that people have: a study runs, is asked and exported all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.story.small import Small, write_study

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


SEVERAL = """
import json, sys
from rank_search.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["rank-search", *arguments]
    try:
        main()
    except SystemExit as ending:
        if ending.code:
            raise
"""


def run_in(folder: Path, *commands: tuple[str, ...], **variables: str) -> subprocess.CompletedProcess[str]:
    """Several commands in one process, whose language and terminal are as the variables say."""
    command = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def small_in(folder: Path) -> Small:
    return write_study(folder, study={"trials": 3, "store": "", "name": "stripes"})


def assert_whole_path(folder: Path, store: str, variables: Mapping[str, str] | None = None) -> None:
    """Run, ask, check, export and pack, from the folder."""
    small_in(folder)
    done = run_in(
        folder,
        ("run", "stripes.toml", "--store", store),
        ("front", store, "stripes"),
        ("check", store, "stripes"),
        ("export", store, "stripes", "2", "-o", "out #1?"),
        ("pack", store, "stripes", "2", "-o", "out %41.rsz"),
        **(variables or {}),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["a b", "50%41?x#y", "häuser 房子", 'it\'s "so"'])
def test_odd_paths(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    assert_whole_path(folder, f"{name[:3]}.sqlite")
    assert (folder / f"{name[:3]}.sqlite").is_file()


def test_a_symlink_to_the_folder_and_to_the_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert_whole_path(tmp_path / "link", "stripes.sqlite")
    (tmp_path / "there").mkdir()
    done = run_in(tmp_path / "there", ("check", str(tmp_path / "link" / "stripes.sqlite"), "stripes"))
    assert done.returncode == 0, done.stderr


def test_a_narrow_terminal_and_no_language(tmp_path: Path) -> None:
    assert_whole_path(tmp_path / "study", "stripes.sqlite", {"COLUMNS": "40", "LANG": "C", "LC_ALL": "C"})
