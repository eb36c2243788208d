"""Small networks whose batch norms have statistics of their own, in one to three dimensions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rank_search.tasks import seeded


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, with statistics and weights of its norms as after some training."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.copy_(0.5 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.3 + torch.rand(module.num_features, generator=generator))
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                    module.bias.copy_(0.5 * torch.randn(module.num_features, generator=generator))
    return model.eval()


def images() -> nn.Module:
    """Of 2 × 6 × 6 numbers, with logits of 3 classes."""
    with seeded(0):
        return with_statistics(
            nn.Sequential(
                nn.Conv2d(2, 5, 3, padding=1),
                nn.BatchNorm2d(5),
                nn.ReLU(),
                nn.Conv2d(5, 6, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.AvgPool2d(3),
                nn.Flatten(),
                nn.Linear(6, 3),
            )
        )


def signals() -> nn.Module:
    """Of 2 × 9 numbers; no logits."""
    with seeded(1):
        return with_statistics(nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 3, 3)))


def volumes() -> nn.Module:
    """Of 1 × 4 × 4 × 4 numbers; no logits."""
    with seeded(2):
        return with_statistics(nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1)))


def vectors() -> nn.Module:
    """Of 7 numbers, with logits of 3 classes."""
    with seeded(3):
        return with_statistics(nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))


class TwoInputs(nn.Module):
    """Takes an image and a vector, and a table that is no batch."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(4):
            self.image, self.vector = nn.Conv2d(1, 3, 3), nn.Linear(5, 3)
        self.norm = nn.BatchNorm1d(3)
        with_statistics(self)

    def forward(self, image: Tensor, vector: Tensor, table: Tensor) -> Tensor:
        both: Tensor = self.norm(self.image(image).mean((2, 3)) + self.vector(vector))
        return both + table.sum()
