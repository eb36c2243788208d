"""A worker whose trials eat memory; it prints what became of each, and is still alive after them."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rank_search.layers import DirectBases, load_plugin, take_inventory
from rank_search.point import Choice, Point
from rank_search.tasks import Supervised
from rank_search.training import TrainingSettings
from rank_search.trials import TrialContext, run_trial

MIB = 2**20


def lists() -> Any:
    kept: list[Any] = []
    while True:
        kept.append([0] * 100_000)


def tensors() -> Any:
    return torch.ones(4096, MIB)


def arrays() -> Any:
    return np.zeros((4096, MIB), dtype=np.uint8)


def little_by_little() -> Any:
    kept: list[Tensor] = []
    while True:
        kept.append(torch.ones(MIB))


def modest() -> Any:
    return torch.ones(8, MIB)


def broken() -> Any:
    raise RuntimeError("something else")


def trial(name: str, meal: Callable[[], Any]) -> tuple[str, str, str]:
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    batch = (torch.randn(20, 6), torch.arange(20) % 3)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        meal()
        return nn.functional.cross_entropy(outputs, targets)

    task = Supervised(network, [batch] * 2, [batch], [batch], loss)
    layers = take_inventory(network, task.example()).layers
    bases = {name: DirectBases(network.get_submodule(name).weight) for name in layers}
    made = TrialContext(
        task, network, layers, {"svd": load_plugin("svd")}, bases.__getitem__, TrainingSettings(), memory=0.25
    )
    outcome = run_trial(made, Point({"0": Choice("svd", {"rank": 2})}), 0)
    return name, outcome.state, outcome.reason


if __name__ == "__main__":
    torch.set_num_threads(1)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    meals = [(each.__name__, each) for each in (modest, lists, tensors, arrays, little_by_little, broken)]
    found = [trial(name, meal) for name, meal in [*meals, ("modest again", modest)]]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    json.dump(found, sys.stdout)
