"""A study goes on only with the code that it was measured with, unless a change is accepted."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from rank_search.store import Store, StudyRecord
from rank_search.study import Study, task_code
from tests.story.small import Command, Small


def record_of(small: Small) -> StudyRecord:
    with Store.open(small.store) as store:
        return store.study("stripes")


def edit(file: Path, text: str = "\n# another metric\n") -> None:
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")


def forget_code(small: Small) -> None:
    """As a store of before code was noted."""
    with closing(sqlite3.connect(small.store)) as connection, connection:
        fingerprint = json.loads(connection.execute("SELECT fingerprint FROM rs_study").fetchone()[0])
        kept = {part: value for part, value in fingerprint.items() if not part.startswith("code ")}
        connection.execute("UPDATE rs_study SET fingerprint = ?", [json.dumps(kept)])


def test_a_changed_task_is_refused_until_it_is_accepted(copied: Small, command: Command) -> None:
    before = record_of(copied)
    assert [part for part in before.fingerprint if part.startswith("code ")] == ["code stripes.py"]
    edit(copied.folder / "stripes.py")
    complaint = command.refused("run", copied.file, "--trials", 10)
    assert f"code stripes.py is {before.fingerprint['code stripes.py'][:12]}… in the store" in complaint
    assert "--accept-changes` resumes" in complaint
    assert record_of(copied) == before
    command.fine("run", copied.file, "--trials", 10, "--accept-changes")
    after = record_of(copied)
    (change,) = after.changes
    assert (change.part, change.before) == ("code stripes.py", before.fingerprint["code stripes.py"])
    assert change.after == after.fingerprint["code stripes.py"] != change.before
    with Store.open(copied.store) as store:
        assert sorted(row.number for row in store.trials(after) if row.id > change.last_trial_id) == [9]
    command.fine("run", copied.file, "--trials", 11)
    assert record_of(copied).changes == (change,)
    edit(copied.folder / "stripes.py")
    rs.run_study(rs.load_study(copied.file), trials=12, accept_changes=True)
    assert record_of(copied).changes[0] == change
    assert len(record_of(copied).changes) == 2


def test_a_change_in_what_the_task_imports_is_seen(copied: Small, command: Command) -> None:
    edit(copied.folder / "stripes.py", "\nimport helper\n")
    (copied.folder / "helper.py").write_text("")
    assert "code helper.py is nothing in the store" in command.refused("run", copied.file, "--trials", 10)
    command.fine("run", copied.file, "--trials", 10, "--accept-changes")
    edit(copied.folder / "helper.py")
    assert "code helper.py" in command.refused("run", copied.file, "--trials", 11)
    edit(copied.folder / "faulty.py")
    assert "faulty.py" not in command.refused("run", copied.file, "--trials", 11), "the task does not import it"


def test_other_changes_are_not_accepted(copied: Small, command: Command) -> None:
    edit(copied.folder / "stripes.py")
    file = Path(copied.file)
    file.write_text(file.read_text(encoding="utf-8").replace("0.005", "0.006"), encoding="utf-8")
    complaint = command.refused("run", copied.file, "--trials", 10, "--accept-changes")
    assert "training.learning_rate is 0.005 in the store, 0.006 now" in complaint
    assert "Restore what has changed" in complaint
    assert "code stripes.py" not in complaint


def test_an_older_study_notes_its_code_once(copied: Small, command: Command) -> None:
    forget_code(copied)
    edit(copied.folder / "stripes.py")
    command.fine("run", copied.file, "--trials", 10)
    (noted,) = record_of(copied).changes
    assert (noted.part, noted.before) == ("code stripes.py", "")
    edit(copied.folder / "stripes.py")
    command.refused("run", copied.file, "--trials", 11)


# ---- which files are the task's code -----------------------------------------------------------------------------


def a_study(folder: Path, factory: str) -> Study:
    tables: dict[str, Any] = {"study": {"name": "x"}, "task": {"factory": factory}, "folder": folder}
    return Study.model_validate(tables)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "own_task/__init__.py": "",
        "own_task/tasks.py": "from . import nets\nfrom .data.images import load\nimport numpy, own_task.loss as l\n",
        "own_task/nets.py": "from own_task import tasks\n",
        "own_task/loss.py": "def broken(:\n",
        "own_task/unused.py": "",
        "own_task/data/__init__.py": "from ..more import *\n",
        "own_task/data/images.py": "if True:\n    def later():\n        import own_helper\n",
        "own_task/more.py": "from .......... import far_away\n",
        "own_helper.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_files_of_a_package_by_module_name(project: Path) -> None:
    found = task_code(a_study(Path("/elsewhere"), "own_task.tasks:task"))
    names = ["__init__", "data/__init__", "data/images", "loss", "more", "nets", "tasks"]
    assert list(found) == ["own_helper.py", *(f"own_task/{name}.py" for name in names)]


def test_files_beside_a_file(project: Path) -> None:
    (project / "own_task" / "data").rename(project / "own_task" / "moved")
    assert list(task_code(a_study(project, "own_task/more.py:task"))) == ["more.py"]
    assert list(task_code(a_study(project, "own_helper.py:task"))) == ["own_helper.py"]


def test_line_ends_do_not_matter(project: Path) -> None:
    study = a_study(project, "own_helper.py:task")
    (project / "own_helper.py").write_bytes(b"a = 1\nb = 2\n")
    before = task_code(study)
    (project / "own_helper.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    assert task_code(study) == before


@pytest.mark.parametrize(
    "factory", ["(in memory)", "gone.py:task", "no.such.module:task", "sys:task", "torch.nn:Linear", "a b:c", "os"]
)
def test_what_has_no_file_of_its_own_has_no_code(tmp_path: Path, factory: str) -> None:
    assert task_code(a_study(tmp_path, factory)) == {}
