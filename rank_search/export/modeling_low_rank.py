"""Layers of low rank in a model of transformers. Written by rank-search, which is not needed to run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLayer(nn.Module, ABC):
    """Stands for a layer by two factors: left, out × rank, and right, rank × in.

    Where a layer's weight was tied to another's, that one has the factors, and this one uses them.
    """

    def __init__(self, dense: Any, rank: int, tied: LowRankLayer | None = None) -> None:
        super().__init__()
        weight = dense.weight if isinstance(dense, nn.Linear) else dense.weight.T  # of an embedding out × ids
        self._shape = tuple(dense.weight.shape)
        self._tied = (tied,)  # in a tuple: no child, whose factors would be saved under a second name
        if tied is None:
            self.left = nn.Parameter(weight.new_empty(int(weight.shape[0]), rank))
            self.right = nn.Parameter(weight.new_empty(rank, int(weight.shape[1])))

    @abstractmethod
    def forward(self, input: Tensor) -> Tensor:
        """What the layer gives, by way of both factors."""

    @property
    def source(self) -> LowRankLayer:
        """Where the factors are."""
        return self._tied[0] or self

    @property
    def weight(self) -> Tensor:
        """Of the dense weight's shape, type and device, which some models ask for; it has no numbers of any use."""
        return self.source.left.detach().new_empty(self._shape)


@final
class LowRank(LowRankLayer):
    """A linear layer: y = left · right · x + bias."""

    def __init__(self, dense: Any, rank: int, tied: LowRankLayer | None = None) -> None:
        super().__init__(dense, rank, tied)
        self.out_features, self.in_features = self._shape if isinstance(dense, nn.Linear) else self._shape[::-1]
        self.bias = None if dense.bias is None else nn.Parameter(dense.weight.new_empty(self.out_features))

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the input through both factors."""
        return F.linear(F.linear(input, self.source.right), self.source.left, self.bias)


@final
class LowRankEmbedding(LowRankLayer):
    """An embedding: rank numbers for each id, and a linear map of these."""

    def __init__(self, dense: nn.Embedding, rank: int, tied: LowRankLayer | None = None) -> None:
        super().__init__(dense, rank, tied)
        self.num_embeddings, self.embedding_dim, self.padding_idx = *self._shape, dense.padding_idx

    def forward(self, input: Tensor) -> Tensor:
        """The rows that the ids name; no gradient goes through those of the padding."""
        if isinstance(self.source, LowRankEmbedding):
            return F.linear(F.embedding(input, self.source.right.T, self.padding_idx), self.source.left)
        rows = F.embedding(input, self.source.left) @ self.source.right  # of a head
        if self.padding_idx is None or not torch.is_grad_enabled():
            return rows
        return torch.where((input == self.padding_idx)[..., None], rows.detach(), rows)


def put_low_rank(model: Any) -> None:
    """Put layers of low rank where the model's configuration has a rank for a layer's name, and where it has a tie."""
    for name, rank in model.config.low_rank.items():
        _put(model, name, rank)
    for name, source in model.config.low_rank_ties.items():
        _put(model, name, model.config.low_rank[source], model.get_submodule(source))
    model.all_tied_weights_keys = still_tied(model, model.all_tied_weights_keys)


def still_tied(model: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Of the names of tied parameters those that are not of layers of low rank, which have no such parameters."""
    gone = {*model.config.low_rank, *model.config.low_rank_ties}
    pairs = ((name, source) for name, source in names.items() if name.rpartition(".")[0] not in gone)
    return {name: source for name, source in pairs if source.rpartition(".")[0] not in gone}


def _put(model: Any, name: str, rank: int, tied: LowRankLayer | None = None) -> None:
    dense = model.get_submodule(name)
    parent, _, child = name.rpartition(".")
    made = LowRankEmbedding if isinstance(dense, nn.Embedding) else LowRank
    setattr(model.get_submodule(parent), child, made(dense, rank, tied))
