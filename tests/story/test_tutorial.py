"""The tutorial, typed as it stands: every file and every command."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rank_search.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
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
        subprocess.run([sys.executable, *words], check=True)
        return
    assert program == "rank-search"
    monkeypatch.setattr(sys, "argv", [program, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, line


def test_everything_on_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE
    for slow, quick in QUICKER.items():
        assert slow in page
        page = page.replace(slow, quick)
    lines = []
    for language, title, text in BLOCK.findall(page):
        if title:
            Path(title).write_text(text, encoding="utf-8")
        if title == "deploy.py":
            exec(text, {})
        if language == "sh":
            for line in text.splitlines():
                typed(line, monkeypatch)
                lines.append(line)
    assert len(lines) == 9
    printed = capsys.readouterr().out
    assert "small torch.Size([1, 10])" in printed
    assert "small.rsz torch.Size([1, 10])" in printed
    assert "features.0" in printed
    assert Path("report.html").stat().st_size > 1_000_000
