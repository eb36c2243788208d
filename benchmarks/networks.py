"""A small residual network of random weights, as benchmarks of latency use it."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXAMPLE = (1, 3, 32, 32)


class Block(nn.Module):
    """Two convolutions beside a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.stride, self.more = (1, 0) if narrow == wide else (2, wide - narrow)
        self.conv1 = nn.Conv2d(narrow, wide, 3, self.stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(inner + F.pad(shortcut, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)))


class ResNet(nn.Sequential):
    """ResNet-20 for images of 32 × 32 pixels, in eval mode, batch norms as after some training."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        blocks = [Block(narrow, wide) for narrow, wide in pairwise(widths)]
        stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        self.eval()
