"""A task small enough to train in a test: four kinds of stripes, told apart by a small convolutional network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rank_search.layers import DirectBases, load_plugin, take_inventory
from rank_search.point import Choice, Point
from rank_search.tasks import Supervised, seeded
from rank_search.training import FineTuning, TrainingSettings, fine_tune
from rank_search.trials import LatencySettings, TrialContext


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (count,), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    waves = torch.stack([rows, columns, rows + columns, rows - columns]).mul(1.6)
    shift = 6.3 * torch.rand(count, 1, 1, generator=generator)
    inputs = torch.sin(waves[targets] + shift) + 0.7 * torch.randn(count, 8, 8, generator=generator)
    return inputs[:, None], targets


def loader(count: int, seed: int, batch: int, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*stripes(count, seed)), batch, shuffle=shuffle)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(96, 4),
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def task() -> Supervised:
    """With a trained network."""
    with seeded(0):
        made = Supervised(network(), loader(480, 1, 40, shuffle=True), loader(200, 2, 100), loader(200, 3, 100))
        fine_tune(made, made.network, FineTuning(TrainingSettings(epochs=4, learning_rate=5e-3)))
    return made


@pytest.fixture(scope="session")
def workbench(task: Supervised) -> Callable[..., TrialContext]:
    """Makes a workbench of the task with these training settings."""
    layers = take_inventory(task.network, task.example()).layers
    bases = {name: DirectBases(task.network.get_submodule(name).weight) for name in layers}
    plugins = {name: load_plugin(name) for name in ("svd", "tucker2")}

    def make(task: Supervised = task, latency: LatencySettings | None = None, **training: object) -> TrialContext:
        settings = TrainingSettings.model_validate(training)
        return TrialContext(task, task.network, layers, plugins, bases.__getitem__, settings, latency)

    return make


@pytest.fixture
def point() -> Callable[..., Point]:
    """Tucker-2 in the second convolution and SVD in the last layer, with these penalties."""
    chosen = {
        "4": Choice("tucker2", {"rank_out": 10, "rank_in": 8}),
        "10": Choice("svd", {"rank": 3}),
    }
    return lambda **penalties: Point(chosen, penalties)


@pytest.fixture
def dense_point() -> Callable[..., Point]:
    return lambda **penalties: Point({"4": Choice(), "10": Choice()}, penalties)
