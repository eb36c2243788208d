"""What is counted before a search begins: without PyTorch's compiler, and compared with what the store has."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.run import run_study
from rank_search.study import Study

TASK = """
import torch
import rank_search as rs
from torch import nn

def task():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1)]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(768, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    batches = [(torch.randn(20, 1, 8, 8), torch.randint(4, (20,)))]
    return rs.Supervised(model, batches, batches, batches)
"""
STUDY = """
[study]
name = "plain"
cache = "spectra"
[task]
factory = "plain.py:task"
[search]
objectives = ["error", "macs"]
"""
RUN = """
import sys
from rank_search.cli import main
sys.argv = ["rank-search", *sys.argv[1:]]
try:
    main()
finally:
    parts = ("torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy")
    print("imported:", [name for name in parts if name in sys.modules])
"""


@pytest.mark.parametrize("verb", ["layers", "space"])
def test_a_look_at_a_study_does_not_import_pytorchs_compiler(verb: str, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(TASK, encoding="utf-8")
    (tmp_path / "plain.toml").write_text(STUDY, encoding="utf-8")
    command = [sys.executable, "-c", RUN, verb, str(tmp_path / "plain.toml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout
    assert "svd" in done.stdout


def search(network: nn.Module, store: Path, examples: torch.Tensor, trials: int) -> rs.Compressed:
    batches = [(torch.zeros(4, 8), torch.zeros(4, dtype=torch.long))]
    data: dict[str, Any] = dict.fromkeys(("train", "selection", "test"), batches)
    return rs.compress(network, **data, store=store, trials=trials, example=examples, training={"epochs": 0})


def test_a_study_that_was_begun_with_another_count_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    network, store = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), tmp_path / "s.sqlite"
    search(network, store, torch.zeros(1, 8), 1)
    search(network, store, torch.zeros(1, 8), 2)
    assert not [each for each in caplog.records if "as counted now" in each.message]
    with caplog.at_level(logging.WARNING):
        search(network, store, torch.zeros(2, 8), 3)
    (said,) = [each.message for each in caplog.records if "as counted now" in each.message]
    assert "384 MACs as counted now, and 192 in the store" in said


@pytest.mark.parametrize(
    ("given", "complaint"),
    [([], "must return at least one"), ([torch.zeros(1, 8), "x"], "a tuple of tensors")],
)
def test_examples_that_cannot_be_used_are_refused(given: list[Any], complaint: str, tmp_path: Path) -> None:
    batches = [(torch.zeros(4, 8), torch.zeros(4, dtype=torch.long))]

    class Task(rs.Task):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(8, 4))

        def example(self) -> torch.Tensor:
            return torch.zeros(1, 8)

        def examples(self) -> list[Any]:
            return given

        def training(self) -> Any:
            return batches

        selection = test = training

        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            return torch.as_tensor(model(batch[0]).square().mean())

        def evaluate(self, model: nn.Module, batches: Any) -> dict[str, float]:
            return {"error": 0.0}

    study = Study.model_validate(
        {"study": {"name": "s", "trials": 1}, "task": {"factory": "here:task"}, "folder": tmp_path}
    )
    with pytest.raises(TaskError, match=complaint):
        run_study(study, task=Task(), store=str(tmp_path / "s.sqlite"))
