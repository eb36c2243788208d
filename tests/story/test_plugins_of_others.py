"""A factorization that is not ours is searched like any other: from a package, or from a file beside the study."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import rank_search as rs
from rank_search.errors import StudyMismatchError
from tests.plugins.stranger import MODULE, install
from tests.story.small import toml

HERE = Path(__file__).parent
COMMANDS = """
import contextlib, json, sys
from rank_search.cli import main
if __name__ == "__main__":
    for line in json.loads(sys.argv[1]):
        sys.argv = ["rank-search", *line]
        try:
            main()
        except SystemExit as ending:
            if ending.code:
                raise
        print("-----")
"""


def write_study(folder: Path, plugin: str) -> Path:
    """A study all of whose trials are on the front; its ladders use the plugin."""
    shutil.copy(HERE / "nets.py", folder)
    tables: dict[str, Any] = {
        "study": {"name": "nets", "trials": 5, "cache": "spectra", "store": str(folder / "nets.sqlite")},
        "task": {"factory": "nets.py:Everything"},
        "layers": {"factorizations": [plugin, "svd"]},
        "search": {
            "objectives": ["loss", {"name": "gain", "direction": "maximize"}],
            "seeds": {"allocations": 0, "fractions": [0.5, 0.25], "weakenings": [1.0]},
        },
        "training": {"epochs": 1},
    }
    file = folder / "nets.toml"
    file.write_text(toml(tables), encoding="utf-8")
    return file


def run(python: str | Path, folder: Path, *lines: list[object]) -> list[str]:
    """What `rank-search` prints for each of the lines, in another folder than the study's."""
    script = folder / "commands.py"
    script.write_text(COMMANDS, encoding="utf-8")
    command = [python, script, json.dumps([[str(word) for word in line] for line in lines])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("-----\n")[:-1]


def front_with(plugin: str, store: Path) -> list[rs.TrialRow]:
    """The members of the front in which a layer is what the plugin makes of it."""
    with rs.Store.open(store) as opened:
        front = opened.front(opened.study("nets"))
    return [row for row in front if plugin in {choice.factorization for choice in row.point.layers.values()}]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("stranger"))


def test_a_strangers_package_is_found_checked_and_searched(python: Path, tmp_path: Path) -> None:
    file, store = write_study(tmp_path, "stranger"), tmp_path / "nets.sqlite"
    listed, laws, _, _ = run(
        python,
        tmp_path,
        ["plugins", "--format", "json"],
        ["plugins", "check", "stranger", "--format", "json"],
        ["run", file],
        ["export", store, "nets", 1, "-o", tmp_path / "small"],
    )
    (stranger,) = [row for row in json.loads(listed) if row["name"] == "stranger"]
    assert (stranger["package"], stranger["problem"]) == ("rank-search-stranger 1.2.3", "")
    assert {row["ok"] for row in json.loads(laws)} == {True}
    assert 1 in [row.number for row in front_with("stranger", store)]
    assert not rs.load(tmp_path / "small").training, "an exported model needs no plugin"
    with pytest.raises(rs.RankSearchError, match="No factorization 'stranger' is installed"):
        rs.run_study(rs.load_study(file))


def test_a_plugin_in_a_file_beside_the_study_is_searched_by_workers(tmp_path: Path) -> None:
    study, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    study.mkdir()
    elsewhere.mkdir()
    (study / "mine.py").write_text(dedent(MODULE).lstrip(), encoding="utf-8")
    file = write_study(study, "mine.py:InputSVD")
    run(sys.executable, elsewhere, ["run", file, "--workers", 2])
    row = front_with("mine.py:InputSVD", study / "nets.sqlite")[0]
    with rs.Store.open(study / "nets.sqlite") as store:
        model = rs.build_model(store, "nets", row.number)
    assert "InputSVD" in {type(module).__name__ for module in model.modules()}
    assert row.measurements["params"] == sum(each.numel() for each in model.parameters())


def test_a_plugin_in_a_file_that_has_changed_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(dedent(MODULE).lstrip(), encoding="utf-8")
    file = write_study(tmp_path, "mine.py:InputSVD")
    rs.run_study(rs.load_study(file), trials=1)
    (tmp_path / "mine.py").write_text(dedent(MODULE).lstrip() + "\nmore = 1\n", encoding="utf-8")
    with pytest.raises(StudyMismatchError, match=r"plugin mine\.py:InputSVD"):
        rs.run_study(rs.load_study(file), trials=1)
