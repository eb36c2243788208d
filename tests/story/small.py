"""A study of a second or two for the tests: its file and its task in a folder, and the command line in this process."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rank_search as rs
from rank_search.cli import main

HERE = Path(__file__).parent
TABLES: Mapping[str, dict[str, Any]] = {
    "study": {"name": "stripes", "trials": 9, "cache": "spectra"},
    "task": {"factory": "stripes.py:task"},
    "layers": {"exclude": ["first"]},
    "search": {
        "objectives": ["error", "macs", "bits"],
        "constraints": ["macs <= 0.95 * dense"],
        "orthogonality": 0.01,
        "entropy": {"low": 0.05, "high": 0.5},
        "seeds": {"allocations": 0, "fractions": [0.5, 0.25], "weakenings": [1.0]},
    },
    "training": {"epochs": 0.5, "learning_rate": 0.005},
}


@dataclass(frozen=True)
class Small:
    """A study file in a folder of its own, and the store that it names."""

    folder: Path

    @property
    def file(self) -> str:
        return str(self.folder / "stripes.toml")

    @property
    def store(self) -> str:
        return str(self.folder / "stripes.sqlite")

    @property
    def artifacts(self) -> Path:
        """The folder of the files of its study; one that does not exist before the study begins."""
        found = [*(self.folder / "stripes.artifacts").glob("stripes-????????????????")]
        return found[0] if found else self.folder / "stripes.artifacts" / "none yet"

    def copy_to(self, folder: Path) -> Small:
        """Everything in another folder, to be changed or damaged there."""
        shutil.copytree(self.folder, folder)
        copied = Small(folder)
        text = Path(self.file).read_text(encoding="utf-8").replace(self.store, copied.store)
        Path(copied.file).write_text(text, encoding="utf-8")
        return copied


def write_study(folder: Path, **changes: dict[str, Any]) -> Small:
    """Write the small study, its tables changed key by key, with its task beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    small = Small(folder)
    tables = deepcopy(dict(TABLES))
    tables["study"]["store"] = small.store
    for table, keys in changes.items():
        tables.setdefault(table, {}).update(keys)
    Path(small.file).write_text(toml(tables), encoding="utf-8")
    for task in ("stripes.py", "faulty.py"):
        shutil.copy(HERE / task, folder)
    return small


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables as TOML."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{_value(key)} = {_value(value)}\n" for key, value in keys.items())
        for name, keys in tables.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_value(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """`rank-search` in this process: anything but a tidy exit is an error of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Answer:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["rank-search", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            main()
        out, err = self._capsys.readouterr()
        code = ending.value.code
        return Answer(code if isinstance(code, int) else int(code is not None), out, err)

    def fine(self, *arguments: object) -> Answer:
        """A command that must succeed."""
        answer = self(*arguments)
        assert answer.code == 0, answer.err or answer.out
        return answer

    def refused(self, *arguments: object) -> str:
        """A command that must be refused with one clear message, which is returned."""
        answer = self(*arguments)
        assert answer.code == 2, answer
        assert answer.out == ""
        assert answer.err.startswith("rank-search: ")
        assert answer.err.count("\nrank-search: ") == 0
        assert "Traceback" not in answer.err
        return answer.err.removeprefix("rank-search: ").rstrip("\n")


def deployed(command: Command, name: str, objective: str) -> tuple[int, nn.Module, nn.Module]:
    """A trial of the front with a factorized layer, by its number, exported and packed.

    Each such trial of the front has an error.
    """
    with rs.Store.open(f"{name}.sqlite") as store:
        changed = [row for row in store.front(store.study(name)) if any(row.chosen)]
    assert all(row.measurements[objective] > 0 for row in changed)
    number = changed[0].number
    assert "verified" in command.fine("export", f"{name}.sqlite", name, number, "-o", "exported").out
    command.fine("pack", f"{name}.sqlite", name, number, "-o", "packed.rsz")
    return number, rs.load("exported"), rs.load("packed.rsz")
