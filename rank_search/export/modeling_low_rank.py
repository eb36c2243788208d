"""Linear layers of low rank in a model of transformers. Written by rank-search, which is not needed to run it."""

from __future__ import annotations

from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn


@final
class LowRank(nn.Module):
    """Stands for a linear layer: y = left · right · x + bias, left out × rank, right rank × in."""

    def __init__(self, dense: Any, rank: int) -> None:
        super().__init__()
        weight = dense.weight if isinstance(dense, nn.Linear) else dense.weight.T  # of transformers' Conv1D
        self.out_features, self.in_features = int(weight.shape[0]), int(weight.shape[1])
        self.left = nn.Parameter(weight.new_empty(self.out_features, rank))
        self.right = nn.Parameter(weight.new_empty(rank, self.in_features))
        self.bias = None if dense.bias is None else nn.Parameter(weight.new_empty(self.out_features))

    @property
    def weight(self) -> Tensor:
        """Of the dense weight's shape, type and device, which some models ask for; it has no numbers of any use."""
        return self.left.detach().new_empty(self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the input through both factors."""
        return F.linear(F.linear(input, self.right), self.left, self.bias)


def put_low_rank(model: Any) -> None:
    """Put layers of low rank where the model's configuration has a rank for a layer's name."""
    for name, rank in model.config.low_rank.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LowRank(model.get_submodule(name), rank))
