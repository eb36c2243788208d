"""A study of a network whose forwards change its buffers: it is the network as the task gave it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.run import run_study
from rank_search.study import Study

DRAWN = torch.Generator().manual_seed(0)
BATCHES = [(torch.randn(8, 12, generator=DRAWN), torch.arange(8) % 4) for _ in range(4)]


class Counting(nn.Module):
    """Counts its forwards, and follows the mean of its inputs while it trains."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(12))
        self.calls: Tensor
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * (x.mean(0) + 3)
        out: Tensor = self.last(self.second(self.first(x - self.mean).relu()).relu())
        return out


def task() -> rs.Supervised:
    return rs.Supervised(Counting(), BATCHES, BATCHES)


def study(folder: Path, trials: int) -> Study:
    return Study.model_validate(
        {
            "study": {"name": "counting", "trials": trials, "cache": "cache"},
            "task": {"factory": "(in memory)"},
            "priors": {"importances": 2},
            "training": {"epochs": 1, "distillation": 0.5},
            "folder": folder,
        }
    )


def test_it_is_not_changed_and_the_study_goes_on(tmp_path: Path) -> None:
    made, store = task(), str(tmp_path / "s.sqlite")
    found = run_study(study(tmp_path, 3), task=made, store=store)
    network = made.network
    assert isinstance(network, Counting)
    assert float(network.calls) == 0
    assert torch.equal(network.mean, torch.zeros(12))
    wrong = sum(int((Counting().eval()(x).argmax(1) != y).sum()) for x, y in BATCHES)
    assert found.study.dense["error"] == wrong / sum(len(y) for _, y in BATCHES)
    goes_on = run_study(study(tmp_path, 5), task=task(), store=store)
    assert goes_on.study.fingerprint == found.study.fingerprint
    with rs.Store.open(store) as opened:
        assert len(opened.trials(opened.study("counting"))) == 5
