"""Images with labels, and a loss of the network that `test_of_model` makes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.options.test_of_model import images

Pair = tuple[Tensor, Tensor]


def labelled() -> list[Pair]:
    drawn = torch.Generator().manual_seed(2)
    return [(x, torch.randint(24, (len(x),), generator=drawn)) for x in images()]


def loss(model: nn.Module, batch: Pair) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])
