"""The task of the export tests: a network with one layer for each factorization, every trial of which is kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs


def network() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(1, 8, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(8),
            relu=nn.ReLU(inplace=True),
            second=nn.Conv2d(8, 12, 3, stride=2, padding=1),
            drop=nn.Dropout(0.3),
            flatten=nn.Flatten(),
            last=nn.Linear(48, 4),
        )
    )


def data(seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(24, 1, 4, 4, generator=generator), torch.randint(4, (24,), generator=generator)
    return list(zip(inputs.split(8), targets.split(8), strict=True))


class Everything(rs.Task):
    """Measures a number and its opposite, so that no trial dominates another and all are on the front."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = network().eval()

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Tensor:
        return data(2)[0][0][:1]

    def training(self) -> Iterable[tuple[Tensor, Tensor]]:
        return data(1)

    def selection(self) -> Iterable[tuple[Tensor, Tensor]]:
        return data(2)

    def test(self) -> Iterable[tuple[Tensor, Tensor]]:
        return data(3)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        loss = sum(float(self.loss(model, batch)) for batch in batches)
        return {"loss": loss, "gain": loss}
