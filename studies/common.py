"""What the example studies share: batches of tensors, and a network that is trained once and kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Batches:
    """Images and labels in batches, to be iterated again and again.

    `shuffle` draws a new order each time, `shift` moves each batch by up to so many pixels each way; both by
    torch's global generator.
    """

    images: Tensor
    labels: Tensor
    size: int
    shuffle: bool = False
    shift: int = 0

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.labels)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for some in torch.split(order, self.size):
            yield self._shifted(self.images[some]), self.labels[some]

    def _shifted(self, images: Tensor) -> Tensor:
        if not self.shift:
            return images
        height, width = images.shape[-2:]
        top, left = torch.randint(0, 2 * self.shift + 1, (2,)).tolist()
        padded = F.pad(images, (self.shift,) * 4)
        return padded[..., top : top + height, left : left + width]


def trained_once(
    network: Callable[[], nn.Module], batches: Batches, cache: Path, epochs: int, learning_rate: float
) -> nn.Module:
    """The trained network: from `cache` if it is there, otherwise trained now (seed 0) and kept there."""
    torch.manual_seed(0)
    model = network()
    if not cache.exists():
        _train(model, batches, epochs, learning_rate)
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.partial")
        save_file(model.state_dict(), partial)
        partial.replace(cache)
    model.load_state_dict(load_file(cache))
    return model.eval()


def _train(model: nn.Module, batches: Batches, epochs: int, learning_rate: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(images), labels))
            optimizer.step()
        schedule.step()
