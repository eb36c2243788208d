"""docs/architecture.md shows the rooms as the import table has them, and numbers the steps as docstrings do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.house.test_imports import PACKAGE, ROOT, ROWS, rooms

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAP = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEPS = {
    int(number): set(re.findall(r"`(\w+)`", named))
    for number, named in re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", PAGE, flags=re.MULTILINE)
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def test_the_picture_is_the_import_table() -> None:
    (picture,) = re.findall(r"^```text\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    drawn = [re.findall(r"^  (\w+)  +\S", row, flags=re.MULTILINE) for row in re.split(r"^-+\n", picture, flags=re.M)]
    assert [set(row) for row in drawn] == [set(row) for row in reversed(ROWS)]


def test_the_map_names_every_room() -> None:
    assert [room for room in rooms() if f"`{room}`" not in MAP] == []
    assert MAP.count("\n") < 50


def test_the_path_has_fourteen_steps_in_rooms_that_there_are() -> None:
    assert list(STEPS) == list(range(1, 15))
    assert set().union(*STEPS.values()) <= set(rooms())


@pytest.mark.parametrize("path", [each for each in SOURCES if re.match(r"Steps? \d", first_line(each))], ids=str)
def test_a_step_named_in_a_docstring_is_that_of_the_list(path: Path) -> None:
    numbers = [int(each) for each in re.findall(r"\d+", first_line(path).split(":")[0])]
    room = path.relative_to(PACKAGE).parts[0]
    if len(numbers) == 1:
        assert room in STEPS[numbers[0]]
    else:
        assert numbers[0] < numbers[1] <= len(STEPS)


def test_what_to_read_first_is_there() -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE.split("## Where to begin reading")[1])
    assert len(named) >= 7
    assert [name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()] == []
