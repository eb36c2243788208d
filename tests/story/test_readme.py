"""Every example of the README, and of the pages that it leads to, runs."""

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
from tests.cluster.commands import check_ours

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON, CHOOSING, STUDY_FILE = (
    (ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("python.md", "choosing.md", "study-file.md")
)


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def lines_of(page: str, beginning: str) -> list[str]:
    return [line for block in blocks("", page) for line in block.splitlines() if line.startswith(beginning)]


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs = torch.randn(count, 16, generator=torch.Generator().manual_seed(count))
    return [(part, (part[:, :8].sum(1) > part[:, 8:].sum(1)).long()) for part in inputs.split(50)]


def a_network_and_its_data() -> dict[str, Any]:
    """What the examples take for granted."""
    torch.manual_seed(0)
    return {
        "model": nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2)).eval(),
        "train_batches": batches(200),
        "selection_batches": batches(100),
        "test_batches": batches(150),
        "batches": [inputs for inputs, _ in batches(200)],
        "x": torch.zeros(1, 16),
    }


def test_readme_begins_with_the_option_table(capsys: Any) -> None:
    table, _ = blocks("python", README)
    mine = a_network_and_its_data()
    exec(table, mine)
    assert mine["small"](mine["x"]).shape == (1, 2)
    assert capsys.readouterr().out


def test_readme_searches_a_model_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, compress = blocks("python", README)
    mine = a_network_and_its_data()
    exec(compress, mine)
    assert mine["smaller"](mine["x"]).shape == (1, 2)


@pytest.mark.parametrize("line", lines_of(README, "rank-search "))
def test_readme_commands_parse(line: str) -> None:
    check_ours(shlex.split(line, comments=True)[1:])


def test_readme_has_three_commands() -> None:
    assert [line.split()[1] for line in lines_of(README, "rank-search ")] == ["run", "front", "export"]


def test_the_python_page_and_the_commands_that_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copytree(ROOT / "studies", tmp_path / "studies", ignore=shutil.ignore_patterns("*.npz"))
    monkeypatch.chdir(tmp_path)
    mine = a_network_and_its_data()
    allocate, by_the_loss, without_labels, continuous, learned, study, compress, pack = blocks("python", PYTHON)
    given = {**mine}
    exec(allocate, given)
    exec(by_the_loss, given)
    with_labels = given["table"].fits.shares
    exec(without_labels, given)
    assert given["table"].fits.shares.keys() == with_labels.keys() != set()
    assert given["table"].fits.shares != with_labels
    exec(continuous, given)
    assert given["choice"].macs <= 0.5 * given["choice"].dense["macs"]
    without = given["table"].fits.shares
    exec(learned, given)
    assert given["table"].fits.shares.keys() == without.keys()
    assert given["table"].fits.shares != without
    assert len(given["front"]) > 2
    names: dict[str, Any] = {}
    exec(study, names)
    assert names["result"].complete
    check_the_promise(names["result"])
    assert names["deployed"](torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    exec(pack, {})
    assert rs.load("packed.rsz")(torch.zeros(3, 64)).shape == (3, 10)
    exec(compress, mine)
    assert mine["smaller"](torch.zeros(1, 16)).shape == (1, 2)
    run_the_commands(monkeypatch, capsys)


def check_the_promise(result: Any) -> None:
    """The seed points alone hold what the demonstration promises."""
    dense = result.study.dense
    within = [row.measurements for row in result.front if row.measurements["test_error"] <= dense["test_error"] + 0.01]
    assert max(dense["macs"] / measured["macs"] for measured in within) >= 5
    assert max(dense["bits"] / measured["bits"] for measured in within) >= 20


def run_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    commands = [*lines_of(CHOOSING, "rank-search front"), *lines_of(README, "rank-search front")]
    assert len(commands) == 9
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert capsys.readouterr().out


def test_the_example_of_a_study_file_is_valid() -> None:
    (text,) = blocks("toml", STUDY_FILE)
    study = Study.model_validate(tomllib.loads(text))
    assert study.name == "digits"
