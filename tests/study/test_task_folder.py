"""Which modules a task gets: those of its own folder, and its code is what it got."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rank_search.errors import TaskError
from rank_search.study import Study, load_task, task_code

TASK = """
import torch, rank_search as rs
{imports}

def task():
    {later}
    rows = [(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))]
    return rs.Supervised(torch.nn.Linear(2, {classes}), rows, rows, rows)
"""
HELPERS = ("helper", "colorsys", "datasets_of_mine", "installed_here")


@pytest.fixture(autouse=True)
def _imports_as_before() -> Iterator[None]:
    path, modules = list(sys.path), {name: sys.modules.get(name) for name in HELPERS}
    sys.modules.pop("colorsys", None)
    yield
    sys.path[:] = path
    for name in [each for each in sys.modules if each.partition(".")[0] in HELPERS]:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in modules.items() if module is not None})


def study(folder: Path, imports: str, classes: str = "helper.CLASSES", later: str = "pass", **files: str) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text(TASK.format(imports=imports, classes=classes, later=later))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    tables = {"study": {"name": "mine"}, "task": {"factory": "task.py:task"}, "folder": folder}
    return Study.model_validate(tables)


def classes(made: Study) -> int:
    return int(load_task(made).model().out_features)  # type: ignore[arg-type]


def test_each_of_two_studies_in_one_process_has_its_own_helper(tmp_path: Path) -> None:
    one = study(tmp_path / "a", "import helper", helper="CLASSES = 3")
    other = study(tmp_path / "b", "import helper", helper="CLASSES = 4")
    assert [classes(each) for each in (one, other, one, other)] == [3, 4, 3, 4]
    assert "helper.py" in task_code(one).keys() & task_code(other).keys()
    assert task_code(one)["helper.py"] != task_code(other)["helper.py"]


def test_packages_are_forgotten_with_all_that_is_inside(tmp_path: Path) -> None:
    made = []
    for name, count in (("a", 3), ("b", 4)):
        (tmp_path / name / "helper").mkdir(parents=True)
        (tmp_path / name / "helper" / "__init__.py").write_text("")
        (tmp_path / name / "helper" / "inside.py").write_text(f"CLASSES = {count}")
        made.append(study(tmp_path / name, "from helper.inside import CLASSES", classes="CLASSES"))
    assert [classes(each) for each in made] == [3, 4]


@pytest.mark.parametrize("where", ["imports", "later"])
def test_a_file_in_the_folder_comes_before_an_installed_one(tmp_path: Path, where: str) -> None:
    said = {"imports": "", "later": "pass"} | {where: "import colorsys"}
    made = study(tmp_path, classes="colorsys.CLASSES", colorsys="CLASSES = 5", **said)
    assert classes(made) == 5
    assert "colorsys.py" in task_code(made)


def test_what_others_import_afterwards_is_not_in_the_folder(tmp_path: Path) -> None:
    made = study(tmp_path, "import helper", helper="CLASSES = 3", colorsys="1 / 0")
    load_task(made)
    assert sys.path[-1] == str(tmp_path)
    assert hasattr(importlib.import_module("colorsys"), "rgb_to_hls")
    load_task(made)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_file_that_was_not_imported_is_not_the_tasks_code(tmp_path: Path) -> None:
    made = study(tmp_path, "import types, helper", helper="CLASSES = 3", types="import helper\n1 / 0")
    assert classes(made) == 3
    assert list(task_code(made)) == ["helper.py", "task.py"]
    late = study(tmp_path / "late", "def f(): import colorsys", classes="2", colorsys="")
    load_task(late)
    assert list(task_code(late)) == ["task.py"], "called after the factory, it finds Python's own"


def test_an_installed_package_that_is_imported_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "installed_here.py").write_text("CLASSES = 6")
    monkeypatch.syspath_prepend(place)
    importlib.import_module("installed_here")
    made = study(tmp_path / "a", "import installed_here", "installed_here.CLASSES", installed_here="CLASSES = 7")
    assert classes(made) == 6
    assert list(task_code(made)) == ["task.py"]


def test_a_module_that_somebody_else_has_imported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets_of_mine.py").write_text("CLASSES = 6")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("datasets_of_mine")
    own = {"datasets_of_mine": "CLASSES = 7"}
    made = study(tmp_path / "a", "import datasets_of_mine", "datasets_of_mine.CLASSES", **own)
    with pytest.raises(TaskError, match=r"imports 'datasets_of_mine', which this process has already imported from"):
        load_task(made)
