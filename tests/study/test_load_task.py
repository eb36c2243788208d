"""Finding the task that a study file names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.study import Study, load_task

TASK = """
import torch, rank_search as rs
from beside_it import CLASSES

def task(classes=CLASSES, **more):
    rows = [(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))]
    return rs.Supervised(torch.nn.Linear(2, classes, **more), rows, rows, rows)

def nothing():
    return None

class Factory:
    @staticmethod
    def task():
        return task()
"""


@pytest.fixture(autouse=True)
def _imports_as_before() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == "beside_it" or name.startswith("rank_search_task_"):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "beside_it.py").write_text("CLASSES = 4")
    return tmp_path


def study(folder: Path, factory: str, **options: Any) -> Study:
    tables = {"study": {"name": "mine"}, "task": {"factory": factory, "options": options}}
    return Study.model_validate({**tables, "folder": folder})


def test_a_file_beside_the_study_file_imports_its_neighbors(folder: Path) -> None:
    task = load_task(study(folder, "task.py:task"))
    assert isinstance(task, rs.Supervised)
    assert isinstance(task.network, nn.Linear)
    assert task.network.out_features == 4


def test_options_are_keyword_arguments(folder: Path) -> None:
    task = load_task(study(folder, "task.py:task", classes=7, bias=False))
    assert isinstance(task, rs.Supervised)
    assert {name: tuple(each.shape) for name, each in task.network.named_parameters()} == {"weight": (7, 2)}


def test_an_absolute_path(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert isinstance(load_task(study(elsewhere, f"{folder / 'task.py'}:task")), rs.Task)


def test_an_installed_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "task", raising=False)
    assert isinstance(load_task(study(Path("/"), "task:task")), rs.Task)
    monkeypatch.delitem(sys.modules, "task")


def test_a_file_that_has_changed_is_read_again(folder: Path) -> None:
    load_task(study(folder, "task.py:task"))
    (folder / "task.py").write_text(TASK.replace("classes=CLASSES", "classes=99"))
    task = load_task(study(folder, "task.py:task"))
    assert isinstance(task, rs.Supervised)
    assert isinstance(task.network, nn.Linear)
    assert task.network.out_features == 99


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("task.py", "'task.py' is neither 'file.py:function' nor 'package.module:function'"),
        (":task", "':task' is neither"),
        ("task.py:", "'task.py:' is neither"),
        ("tusk.py:task", r"there is no file .*tusk\.py"),
        ("no_such_package.tasks:task", "does not import: ModuleNotFoundError: No module named 'no_such_package'"),
        ("task.py:tusk", r"task\.py has no function 'tusk'"),
        ("beside_it.py:CLASSES", "has no function 'CLASSES'"),
        ("task.py:nothing", "returned NoneType; it must return a rank_search.Task"),
        ("task.py:Factory", "returned Factory; it must return a rank_search.Task"),
        ("syntax.py:task", "does not import: SyntaxError"),
        ("reads.py:task", "does not import: FileNotFoundError.*absent.npz"),
        ("raises.py:task", "does not import: ZeroDivisionError"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused(factory: str, message: str, folder: Path) -> None:
    (folder / "syntax.py").write_text("def task(:")
    (folder / "raises.py").write_text("1 / 0")
    (folder / "reads.py").write_text("open('absent.npz')")
    with pytest.raises(TaskError, match=message):
        load_task(study(folder, factory))


def test_a_factory_that_raises_keeps_its_cause(folder: Path) -> None:
    with pytest.raises(TaskError, match=r"raised TypeError: .*'depth'.*\[task.options\]") as raised:
        load_task(study(folder, "task.py:task", depth=3))
    assert isinstance(raised.value.__cause__, TypeError)
