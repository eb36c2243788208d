"""The task of the golden study. It must stay as it is: the study was made from these very bytes."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs


def batches(count: int, seed: int, size: int = 40) -> list[tuple[Tensor, Tensor]]:
    """Noisy waves on 8×8 pixels in one of four directions."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (count,), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    waves = torch.stack([rows, columns, rows + columns, rows - columns]).mul(1.6)
    shift = 6.3 * torch.rand(count, 1, 1, generator=generator)
    inputs = torch.sin(waves[targets] + shift) + 0.9 * torch.randn(count, 8, 8, generator=generator)
    return list(zip(inputs[:, None].split(size), targets.split(size), strict=True))


def network() -> nn.Sequential:
    """Its weights are not trained, so that every machine has the same ones."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(1, 6, 3, padding=1),
            relu=nn.ReLU(),
            second=nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
            norm=nn.BatchNorm2d(8),
            pool=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            last=nn.Linear(32, 4),
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
            else:
                parameter.fill_(float(parameter is model.norm.weight))
    return model.eval()


class Waves(rs.Task):
    def __init__(self) -> None:
        self.network = network()

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Tensor:
        return self.selection()[0][0][:1]

    def training(self) -> list[tuple[Tensor, Tensor]]:
        return batches(240, seed=1)

    def selection(self) -> list[tuple[Tensor, Tensor]]:
        return batches(120, seed=2)

    def test(self) -> list[tuple[Tensor, Tensor]]:
        return batches(120, seed=3)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if torch.is_grad_enabled() and model is not self.network:
            self._suffer()
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        wrong = total = 0
        for inputs, targets in batches:
            wrong += int((model(inputs).argmax(dim=1) != targets).sum())
            total += len(targets)
        return {"error": wrong / total}

    def _suffer(self) -> None:
        """What happens to a trial while the study is made."""
        trouble = Path(__file__).with_name("trouble")
        said = trouble.read_text() if trouble.exists() else ""
        if said == "raise":
            raise RuntimeError("the golden trial that fails")
        if said == "die":
            os._exit(9)


def task() -> rs.Task:
    return Waves()
