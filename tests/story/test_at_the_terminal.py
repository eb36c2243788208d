"""What a user types and sees: words left out, quiet, waits, Ctrl-C, stores found from any folder."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from rank_search.store import Store
from rank_search.study import store_of
from tests.story.forks import wait_for
from tests.story.small import Command, Small, write_study

PROGRAM = str(Path(sys.executable).with_name("rank-search"))


@pytest.fixture(autouse=True)
def _no_store_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK_SEARCH_STORE", raising=False)


def numbers(command: Command, *arguments: object) -> list[int]:
    return [row["trial"] for row in command.fine(*arguments, "--format", "json").json]


# ---- the command itself ------------------------------------------------------------------------------------


def test_version_and_help(command: Command) -> None:
    assert command.fine("--version").out == f"rank-search {version('rank-search')}\n"
    for arguments in ((), ("front",), ("plugins",), ("plugins", "check")):
        assert command.fine(*arguments, "-h").out == command.fine(*arguments, "--help").out
    assert "--install-completion" in command.fine("-h").out


def test_as_a_module() -> None:
    ended = subprocess.run([sys.executable, "-m", "rank_search", "--version"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, f"rank-search {version('rank-search')}\n")


def test_completion_knows_the_verbs() -> None:
    asked = {"_RANK_SEARCH_COMPLETE": "complete_bash", "COMP_WORDS": "rank-search ren", "COMP_CWORD": "1"}
    ended = subprocess.run([PROGRAM], capture_output=True, text=True, env={**os.environ, **asked})
    assert ended.stdout.split() == ["rename"]


# ---- words left out ----------------------------------------------------------------------------------------


def test_the_only_study_needs_no_name(small: Small, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {
        verb: command.fine(verb, small.store, "stripes").out for verb in ("front", "trials", "check", "show 2")[:3]
    }
    shown = command.fine("show", small.store, "stripes", 2).out
    assert {verb: command.fine(verb, small.store).out for verb in whole} == whole
    assert command.fine("show", small.store, 2).out == shown
    monkeypatch.setenv("RANK_SEARCH_STORE", small.store)
    assert {verb: command.fine(verb).out for verb in whole} == whole
    assert {verb: command.fine(verb, "stripes").out for verb in whole} == whole
    assert command.fine("show", 2).out == command.fine("show", "stripes", 2).out == shown
    assert command.fine("studies").out
    assert "no study 'strips'" in command.refused("front", "strips")
    assert "99" in command.refused("show", 99)


def test_where_there_are_several_a_name_is_needed(copied: Small, command: Command) -> None:
    with Store.open(copied.store) as store:
        record = store.study("stripes")
        store.join(type(record)(**{**vars(record), "name": "other", "id": 0}))
    message = command.refused("front", copied.store)
    assert "has 2 studies: stripes, other. Give the NAME of one." in message
    assert command.fine("front", copied.store, "stripes").out


def test_an_option_without_its_value(small: Small, command: Command) -> None:
    answer = command("trials", small.store, "--where")
    assert answer.code == 2
    assert "'--where' requires an argument" in answer.err.replace("Option ", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["front", "FOLDER"], ["could not be read", "Check that it is a file"]),
        (["front", "."], ["could not be read", "Check that it is a file"]),
        (["show", "STORE", "9" * 30], ["a number is too large"]),
        (["front"], ["No store is given", "RANK_SEARCH_STORE"]),
        (["delete", "STORE", "none", "--yes"], ["no study 'none'"]),
        (["delete", "STORE", "stripes"], ["no terminal to ask on", "9 trials", "Give --yes"]),
        (["rename", "STORE", "none", "new"], ["no study 'none'"]),
        (["rename", "STORE", "stripes", ""], ["is no name for a study"]),
        (["rename", "STORE", "stripes", "stripes"], ["already has a study 'stripes'"]),
        (["trials", "STORE", "--where", "eror<1"], ["'eror'", "did you mean 'error'?"]),
        (["trials", "STORE", "--where", "error"], ["A bound is"]),
    ],
    ids=lambda each: " ".join(each)[:30],
)
def test_mistakes_are_told(
    words: list[str], said: list[str], small: Small, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    message = command.refused(*({"STORE": small.store, "FOLDER": str(tmp_path)}.get(word, word) for word in words))
    assert all(part in message for part in said), message
    assert len(numbers(command, "trials", small.store)) == 9


def test_signs_that_cannot_be_shown(small: Small) -> None:
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for format in ("table", "csv", "json"):
        words = [PROGRAM, "front", small.store, "--format", format]
        ended = subprocess.run(words, capture_output=True, text=True, env=plain)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.isascii()
        if format == "json":
            assert [row["trial"] for row in json.loads(ended.stdout)]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_number_is_broken_however_narrow_the_terminal(width: int, small: Small) -> None:
    with closing(Terminal("trials", small.store, COLUMNS=str(width))) as terminal:
        assert terminal.end() == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", terminal.said)
    assert plain.count("18,624") >= 2
    assert max(map(len, plain.splitlines())) <= width
    assert ("│" in plain) == (width == 200)


# ---- trials ------------------------------------------------------------------------------------------------


def test_some_of_the_trials(small: Small, command: Command) -> None:
    rows = command.fine("trials", small.store, "--format", "json").json
    complete = [row["trial"] for row in rows if row["state"] == "complete"]
    assert numbers(command, "trials", small.store, "--state", "complete") == complete
    assert numbers(command, "trials", small.store, "--state", "complete", "--limit", 2) == complete[-2:]
    both = numbers(command, "trials", small.store, "--state", "complete", "--state", "infeasible")
    assert both == [row["trial"] for row in rows if row["state"] in ("complete", "infeasible")]
    middle = sorted(row["measurements"]["macs"] for row in rows)[4]
    below = [row["trial"] for row in rows if row["measurements"]["macs"] <= middle]
    assert numbers(command, "trials", small.store, "--where", f"macs <= {middle}") == below
    dominated = [row["trial"] for row in rows if row["measurements"].get("error", 1) <= 0.5]
    assert numbers(command, "trials", small.store, "--where", "error <= 0.5") == dominated
    low = numbers(command, "trials", small.store, "--where", "second.rank <= 3")
    for number in complete:
        choice = command.fine("show", small.store, number, "--format", "json").json[0]["layers"]["second"]
        is_low = choice != "dense" and choice.get("rank", 99) <= 3
        assert (number in low) == is_low
    assert "no such trials" in command.fine("trials", small.store, "--state", "failed").out


# ---- delete and rename -------------------------------------------------------------------------------------


def test_a_renamed_study_goes_on_under_its_new_name(copied: Small, command: Command, tmp_path: Path) -> None:
    front = numbers(command, "front", copied.store)
    answer = command.fine("rename", copied.store, "stripes", "new name")
    assert "rank-search front" in answer.err
    assert 'name = "new name"' in answer.err
    assert numbers(command, "front", copied.store, "new name") == front
    command.fine("check", copied.store, "new name")
    command.fine("pack", copied.store, "new name", front[-1], "-o", tmp_path / "small.rsz")
    file = Path(copied.file)
    file.write_text(file.read_text(encoding="utf-8").replace('"stripes"', '"new name"'), encoding="utf-8")
    command.fine("run", copied.file, "--trials", 10)
    assert numbers(command, "trials", copied.store, "new name") == list(range(10))
    command.fine("check", copied.store, "new name")


def test_a_deleted_study_is_gone_with_its_files(copied: Small, command: Command) -> None:
    answer = command.fine("delete", copied.store, "stripes", "--yes")
    assert "9 trials" in answer.err
    assert command.fine("studies", copied.store).out == "no studies in this store\n"
    assert not copied.artifacts.exists()
    command.fine("run", copied.file, "--trials", 3)
    assert numbers(command, "trials", copied.store) == [0, 1, 2]


# ---- where stores are --------------------------------------------------------------------------------------


def quick(folder: Path, **study: Any) -> Small:
    return write_study(folder, study={"store": "", "trials": 3, **study}, training={"epochs": 0})


def test_a_study_finds_its_store_from_every_folder(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = quick(tmp_path / "study")
    for place, trials in ((tmp_path, 3), (study.folder, 4), (study.folder / "spectra", 5)):
        monkeypatch.chdir(place)
        said = command.fine("run", os.path.relpath(study.file), "--trials", trials).err
        assert ("begins in study/stripes.sqlite" if trials == 3 else "Resuming the study") in said
    assert numbers(command, "trials", study.store) == list(range(5))
    assert {path.name for path in tmp_path.rglob("*.sqlite")} == {"stripes.sqlite"}
    command.fine("check", study.store)


def test_the_store_of_an_earlier_version_is_found_in_the_current_folder(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = quick(tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    command.fine("run", study.file, "--store", "stripes.sqlite")
    said = command.fine("run", study.file, "--trials", 4).err
    assert "in stripes.sqlite, in the current folder: 3 finished trials." in said
    assert not Path(study.store).exists()
    assert numbers(command, "trials", "stripes.sqlite") == list(range(4))
    shutil.copy("stripes.sqlite", study.store)
    assert "study/stripes.sqlite, next to the study file, is left alone" in command.fine("run", study.file).err


def test_a_store_of_another_study_in_the_current_folder_is_let_be(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = quick(tmp_path / "mine"), quick(tmp_path / "other")
    monkeypatch.chdir(other.folder)
    command.fine("run", other.file)
    command.fine("run", mine.file)
    assert store_of(rs.load_study(mine.file)).url == mine.store
    assert len(numbers(command, "trials", mine.store)) == 3
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    Path("stripes.sqlite").write_text("no store")
    assert store_of(rs.load_study(mine.file)).url == mine.store


@pytest.mark.parametrize("given", ["kept/mine.db", "sqlite:///kept/mine.db", "../mine.db"])
def test_a_relative_store_is_beside_the_study_file(
    given: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = quick(tmp_path / "study", store=given)
    monkeypatch.chdir(tmp_path)
    command.fine("run", study.file)
    assert numbers(command, "trials", study.folder / given.removeprefix("sqlite:///")) == [0, 1, 2]


def test_the_environment_and_the_option_are_relative_to_the_current_folder(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = quick(tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK_SEARCH_STORE", "env.db")
    command.fine("run", study.file)
    command.fine("run", study.file, "--store", "option.db")
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".db"} == {"env.db", "option.db"}
    assert not Path(study.store).exists()


def test_relative_artifacts_stay_where_they_are(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = quick(tmp_path / "study", artifacts="files")
    monkeypatch.chdir(tmp_path)
    command.fine("run", study.file)
    assert len(list((study.folder / "files").rglob("*.safetensors"))) == 1
    monkeypatch.chdir(study.folder)
    command.fine("run", study.file, "--trials", 4)
    command.fine("check", study.store)
    moved = tmp_path / "files"  # where an earlier version would have put them
    shutil.move(study.folder / "files", moved)
    with Store.open(study.store) as store, closing(store):
        recorded = store.study("stripes").artifacts
    execute(study.store, "UPDATE rs_study SET artifacts = ?", recorded.replace(str(study.folder), str(tmp_path)))
    command.fine("run", study.file, "--trials", 5)
    command.fine("check", study.store)
    other = Path(study.file).read_text(encoding="utf-8").replace('"files"', '"elsewhere"')
    Path(study.file).write_text(other, encoding="utf-8")
    assert "A study's files stay in one place" in command("run", study.file, "--trials", 6).err


def execute(database: str, statement: str, *values: str) -> None:
    import sqlite3

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement, values)


# ---- quiet, waits, Ctrl-C ----------------------------------------------------------------------------------


def test_quiet_prints_results_and_errors_only(tmp_path: Path, command: Command) -> None:
    study = quick(tmp_path / "study")
    for arguments in (("run", study.file, "--quiet"), ("--quiet", "run", study.file), ("run", study.file, "-q")):
        answer = command.fine(*arguments)
        assert (answer.out, answer.err) == ("", "")
    assert command.fine("run", study.file).err
    assert command.fine("front", study.store, "-q").out == command.fine("front", study.store).out
    assert command("front", study.store, "none", "-q").err


PATIENCE = 300
"""Seconds without a word from the command, after which it hangs."""


class Terminal:
    """The command at a terminal of its own; its standard output and error are one."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
        words = [PROGRAM, *map(str, arguments)]
        self.process = subprocess.Popen(words, env=env, preexec_fn=lambda: os.login_tty(theirs))
        os.close(theirs)
        self.said = ""
        self._decoder = getincrementaldecoder("utf-8")("replace")  # what is read may end within a character

    def lines(self) -> Iterator[str]:
        while True:
            assert select.select([self._ours], [], [], PATIENCE)[0], f"nothing in {PATIENCE} s after: {self.said}"
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # what Linux says when the other side is closed
                return
            if not part:
                return
            self.said += self._decoder.decode(part)
            yield self.said

    def until(self, pattern: str) -> None:
        assert any(re.search(pattern, said) for said in self.lines()), self.said

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C at a question, once the command waits for its answer.

        Between the words of the question and the wait, Python keeps an interrupt until the next key.
        """
        wait_for(self._sleeps)
        self.type("\x03")

    def _sleeps(self) -> bool:
        stat = Path(f"/proc/{self.process.pid}/stat")
        if stat.exists():
            return stat.read_text().rpartition(")")[2].split()[0] == "S"
        words = ("ps", "-o", "stat=", "-p", str(self.process.pid))
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.startswith("S")

    def end(self) -> int:
        for _ in self.lines():
            pass
        return self.process.wait()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_each_wait_has_a_word_at_a_terminal(tmp_path: Path) -> None:
    study = quick(tmp_path / "study")
    with closing(Terminal("run", study.file)) as terminal:
        assert terminal.end() == 0
        for word in ("Loading PyTorch", "Reading the task", "Measuring the dense model", "begins in"):
            assert terminal.said.count(word) == 1
        assert "Traceback" not in terminal.said
    with closing(Terminal("layers", study.file, "--quiet")) as terminal:
        assert terminal.end() == 0
        assert "Reading" not in terminal.said


def test_ctrl_c_ends_a_search_with_130(tmp_path: Path, command: Command) -> None:
    study = write_study(tmp_path / "study", study={"trials": 500}, training={"epochs": 3})
    with closing(Terminal("run", study.file)) as terminal:
        terminal.until(r"[1-9]\d*/500 trials")
        terminal.type("\x03")
        assert terminal.end() == 128 + signal.SIGINT
        assert "Interrupted; nothing finished is lost." in terminal.said
        assert "Traceback" not in terminal.said
    assert len(numbers(command, "trials", study.store)) >= 1


def test_deleting_asks_once(copied: Small, command: Command) -> None:
    with closing(Terminal("delete", copied.store, "stripes")) as terminal:
        terminal.until("y/N")
        terminal.type("n\n")
        assert terminal.end() == 1
        assert "9 trials" in terminal.said
    assert len(numbers(command, "trials", copied.store)) == 9
    with closing(Terminal("delete", copied.store, "stripes")) as terminal:
        terminal.until("y/N")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "Traceback" not in terminal.said
    assert len(numbers(command, "trials", copied.store)) == 9
    with closing(Terminal("delete", copied.store, "stripes")) as terminal:
        terminal.until("y/N")
        terminal.type("y\n")
        assert terminal.end() == 0
    assert command.fine("studies", copied.store).out == "no studies in this store\n"


def test_watching_a_complete_study_ends(small: Small) -> None:
    with closing(Terminal("status", small.store, "--watch")) as terminal:
        assert terminal.end() == 0
        assert "complete" in terminal.said
    piped = subprocess.run([PROGRAM, "status", small.store, "--watch"], capture_output=True, text=True, check=True)
    assert piped.stdout.count("status of stripes") == 1
