"""Whoever reads a search's progress goes away: the search goes on, locally and with workers, and so do its trials."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rank_search.point import State
from rank_search.store import Store
from tests.story.small import Small, write_study

pytestmark = pytest.mark.faults

PROGRAM = Path(sys.executable).with_name("rank-search")
LOUD = """
import sys

from faulty import _Task


class Loud(_Task):
    def evaluate(self, model, batches):
        for stream in (sys.stdout, sys.stderr):
            stream.write("measured" + "!" * 5000 + "\\n")
            stream.flush()
        return self.sound.evaluate(model, batches)
"""


def loud(folder: Path, **launch: Any) -> Small:
    """A small study whose task prints."""
    task = {"factory": "loud.py:Loud"}
    small = write_study(folder, task=task, launch=launch, study={"trials": 4}, training={"epochs": 0.1})
    (folder / "loud.py").write_text(LOUD, encoding="utf-8")
    return small


def assert_complete(small: Small) -> None:
    with Store.open(small.store) as store:
        study = store.study("stripes")
        assert {row.state for row in store.trials(study)} <= {State.COMPLETE, State.INFEASIBLE}
        assert [row.number for row in store.trials(study) if row.reason.startswith("BrokenPipe")] == []
        assert len(store.trials(study)) == 4
        assert store.claims(study) == []


@pytest.mark.parametrize(
    ("redirected", "launch"),
    [
        ("2>&1 | head -1", {"workers": 2}),
        (">&- 2>&-", {"workers": 2}),
    ],
    ids=["reader gone", "closed"],
)
def test_the_search_goes_on(redirected: str, launch: Mapping[str, Any], tmp_path: Path) -> None:
    small = loud(tmp_path / "study", **launch)
    command = [PROGRAM, "run", small.file, "--log", "/dev/full"]
    shell = f'set -o pipefail; ("$@"; echo $? > code) {redirected}'
    subprocess.run(["bash", "-c", shell, "bash", *map(str, command)], cwd=tmp_path, stdout=subprocess.PIPE)
    assert (tmp_path / "code").read_text() == "0\n"
    assert_complete(small)


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """Its processes are told to hang up, and what they write afterwards fails."""
    small = loud(tmp_path / "study")
    master, slave = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", PROGRAM, "run", small.file],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    shown = b""
    while b"begins in" not in shown:  # the study has been joined, and its trials come
        shown += os.read(master, 65536)
    os.close(master)
    assert process.wait() == 0
    assert_complete(small)
