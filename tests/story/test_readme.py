"""Every example of the README runs."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.cli import main
from rank_search.study import Study

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs = torch.randn(count, 16, generator=torch.Generator().manual_seed(count))
    return [(part, (part[:, :8].sum(1) > part[:, 8:].sum(1)).long()) for part in inputs.split(50)]


def test_the_python_examples_and_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shutil.copytree(ROOT / "studies", tmp_path / "studies", ignore=shutil.ignore_patterns("*.npz"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    mine = {
        "model": nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2)),
        "train_batches": batches(200),
        "selection_batches": batches(100),
        "test_batches": batches(150),
    }
    study, pack, compress = blocks("python")
    names: dict[str, Any] = {}
    exec(study, names)
    assert names["result"].complete
    check_the_promise(names["result"])
    assert names["deployed"](torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    exec(pack, {})
    assert rs.load("packed.rsz")(torch.zeros(3, 64)).shape == (3, 10)
    exec(compress, mine)
    assert mine["smaller"](torch.zeros(1, 16)).shape == (1, 2)  # type: ignore[operator]
    run_the_commands(monkeypatch, capsys)


def check_the_promise(result: Any) -> None:
    """The seed points alone hold what the demonstration promises."""
    dense = result.study.dense
    within = [row.measurements for row in result.front if row.measurements["test_error"] <= dense["test_error"] + 0.01]
    assert max(dense["macs"] / measured["macs"] for measured in within) >= 5
    assert max(dense["bits"] / measured["bits"] for measured in within) >= 20


def run_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    commands = [line for block in blocks("") for line in block.splitlines() if line.startswith("rank-search front")]
    assert len(commands) == 8
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert capsys.readouterr().out


def test_the_study_file_is_valid() -> None:
    (text,) = blocks("toml")
    study = Study.model_validate(tomllib.loads(text))
    assert study.name == "digits"
