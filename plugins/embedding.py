"""Embeddings: token ids stand for one-hot inputs, so that looking a row up is a matrix product that costs nothing."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.layers import Layer, LayerKind


class EmbeddingKind(LayerKind):
    """`nn.Embedding`: W is out × tokens, the module's weight transposed, and y is the column of W that an id names.

    Another weight of r × tokens is a table of r numbers a token, and mixing what it gives is a linear map. No gradient
    reaches the column of the `padding_idx`: what is zero there stays zero, whatever the rest becomes.
    """

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.Embedding,)

    def refusal(self, module: nn.Module) -> str:
        own = cast("nn.Embedding", module)
        if own.max_norm is not None:
            return "it rescales its rows whenever they are looked up (max_norm), which factors cannot do"
        named = [name for name in ("scale_grad_by_freq", "sparse") if getattr(own, name)]
        return f"its gradients are of another kind ({' and '.join(named)}) than those of factors" if named else ""

    def geometry(self, module: nn.Module) -> Layer:
        weight, padding_idx = self.weight(module), cast("nn.Embedding", module).padding_idx
        return Layer("", "", tuple(weight.shape), bias=False, dtype=weight.dtype, padding_idx=padding_idx)

    def operate(self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        rows = F.embedding(x, weight.T, layer.padding_idx)
        return rows if bias is None else rows + bias

    def mix(self, layer: Layer, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, matrix, bias)

    def columns(self, layer: Layer, x: Tensor, most: int) -> Tensor:
        return x.flatten()[:most]

    def channels(self, layer: Layer) -> int:
        return -1

    def weight(self, module: nn.Module) -> Tensor:
        return module.get_parameter("weight").T

    def as_kept(self, weight: Tensor) -> Tensor:
        return weight.T

    def one_hot(self) -> bool:
        return True
