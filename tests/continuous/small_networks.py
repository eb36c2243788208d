"""Small networks, and inputs for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rank_search.tasks import seeded


def convolutional() -> nn.Sequential:
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 5),
        ).eval()


def images(count: int = 2) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return [torch.randn(16, 3, 6, 6, generator=drawn).cumsum(-1) for _ in range(count)]
