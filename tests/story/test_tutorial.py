"""The pages to follow, typed as they stand: every file and every command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from rank_search.cli import main
from tests.pretrained_models import modules_in

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```', flags=re.MULTILINE | re.DOTALL)
QUICKER = {
    "trials = 20": "trials = 12",
    "epochs = 3\n": "epochs = 0.5\n",
    "--epochs 30": "--epochs 1",
    "mine@30": "mine@1",
}


def typed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(line)
    if program == "python":
        subprocess.run([sys.executable, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return
    assert program == "rank-search"
    monkeypatch.setattr(sys, "argv", [program, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, line


def followed(page: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write the page's files, run its commands and what it calls deploy.py; yields each command that was run."""
    for language, title, text in BLOCK.findall(page):
        if title:
            Path(title).write_text(text, encoding="utf-8")
        if title == "deploy.py":
            exec(text, {})
        for line in text.splitlines() if language == "sh" else ():
            typed(line, monkeypatch)
            yield line


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    for slow, quick in QUICKER.items():
        assert slow in page
        page = page.replace(slow, quick)
    assert len(list(followed(page, monkeypatch))) == 9
    printed = capsys.readouterr().out
    assert "small torch.Size([1, 10])" in printed
    assert "small.rsz torch.Size([1, 10])" in printed
    assert "features.0" in printed
    assert Path("report.html").stat().st_size > 1_000_000


def test_writing_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "writing-a-task.md").read_text(encoding="utf-8")
    assert len(list(followed(page, monkeypatch))) == 3
    with rs.Store.open("segmentation.sqlite") as store:
        front = store.front(store.study("segmentation"))
    assert {"error", "iou", "macs", "test_iou"} <= set(front[0].measurements)
    names: dict[str, Any] = {}
    exec(Path("supervised.py").read_text(encoding="utf-8"), names)
    task = names["task"](width=32)
    assert task.evaluate(task.model(), task.selection())["error"] > 0.2  # it was never trained


def test_language_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    page = (DOCS / "language-models.md").read_text(encoding="utf-8")
    modules_in(tmp_path / "modules", monkeypatch)
    assert len(list(followed(page, monkeypatch))) == 2
    for script in ("encoder.py", "translate.py"):
        exec(Path(script).read_text(encoding="utf-8"), {})
    printed = capsys.readouterr().out
    assert all(each in printed for each in ("generated (3, 17)", "embeddings (8, 32)", "translated 8"))
    with rs.Store.open("tiny.sqlite") as store:
        front = store.front(store.study("tiny"))
    assert {"nats", "perplexity", "kl", "params", "test_nats"} <= set(front[0].measurements)
