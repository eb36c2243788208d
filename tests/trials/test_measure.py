from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from torch import Tensor, nn

from rank_search.trials import LatencySettings, Supervised, measure, measure_latency, test_measurements


def test_every_number_of_a_known_model() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, 3))
    data = [(torch.randn(5, 1, 4, 4), torch.zeros(5, dtype=torch.long))]
    task = Supervised(model, data, data, data, metric=lambda outputs, targets: 0.125)
    measured = measure(task, model, 100)
    assert measured == {"error": 0.125, "params": 18 + 27, "macs": 2 * 9 * 4 + 24, "bits": 800}


def test_latency_is_there_if_asked_for(task: Supervised) -> None:
    assert measure(task, task.network, 1, LatencySettings(repeats=2))["latency"] > 0


def test_the_model_is_in_eval_mode(task: Supervised) -> None:
    task.network.train()
    measure(task, task.network, 1)
    assert not task.network.training


class Watched(nn.Module):
    """Notes the batch and the threads of each forward, and takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, bool]] = []

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.seen.append((len(x), torch.get_num_threads(), torch.is_grad_enabled()))
        time.sleep(0.002)
        return x if y is None else x + y


@pytest.mark.parametrize("example", [torch.zeros(1, 3), (torch.zeros(1, 3), torch.ones(1, 3))])
def test_latency_runs_the_stated_batch_and_threads(example: Tensor | tuple[Tensor, ...]) -> None:
    model, before = Watched(), torch.get_num_threads()
    seconds = measure_latency(model, example, LatencySettings(batch=4, threads=before + 1, repeats=5))
    assert seconds >= 0.002
    assert model.seen == [(4, before + 1, False)] * (5 + 3)
    assert torch.get_num_threads() == before


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(TypeError):
        measure_latency(nn.Linear(2, 2), (torch.zeros(1, 2), torch.zeros(1, 2)), LatencySettings(threads=before + 1))
    assert torch.get_num_threads() == before


def test_test_data_is_named_as_such(task: Supervised) -> None:
    constant = dataclasses.replace(task, metric=lambda outputs, targets: float(len(outputs)))
    assert test_measurements(constant, task.network) == {"test_error": 200}
