from __future__ import annotations

import dataclasses

import torch
from torch import nn

from rank_search.tasks import Supervised
from rank_search.trials import measure, test_measurements


def test_every_measurement_of_a_known_model() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].get_parameter("weight")[0] = 0
    data = [(torch.randn(5, 1, 4, 4), torch.zeros(5, dtype=torch.long))]
    task = Supervised(model, data, data, data, metric=lambda outputs, targets: 0.125)
    measured = measure(task, model, 100)
    counted = {"params": 18 + 27, "nonzeros": 9 + 27, "macs": 2 * 9 * 4 + 24, "bits": 800}
    assert measured == {"error": 0.125, **counted}


def test_a_model_is_measured_in_eval_mode(task: Supervised) -> None:
    task.network.train()
    measure(task, task.network, 1)
    assert not task.network.training


def test_measurements_on_test_data_are_named_so(task: Supervised) -> None:
    constant = dataclasses.replace(task, metric=lambda outputs, targets: float(len(outputs)))
    assert test_measurements(constant, task.network) == {"test_error": 200}
