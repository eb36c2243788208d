"""Linear layers: the weight is a matrix, and the last dimension of inputs and outputs has the channels."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.layers import Layer, LayerKind, linear_of


class LinearKind(LayerKind):
    """`nn.Linear`: W is out × in, and y = x·Wᵀ + b for every row x of the inputs."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.Linear,)

    def geometry(self, module: nn.Module) -> Layer:
        weight = self.weight(module)
        return Layer("", "", tuple(weight.shape), module._parameters.get("bias") is not None, dtype=weight.dtype)

    def operate(self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return F.linear(x, weight, bias)

    def mix(self, layer: Layer, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, matrix, bias)

    def columns(self, layer: Layer, x: Tensor, most: int) -> Tensor:
        return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])[:most]

    def channels(self, layer: Layer) -> int:
        return -1

    def parts(self, module: nn.Module, sizes: Sequence[int]) -> tuple[nn.Module, ...]:
        bias = module._parameters.get("bias")
        biases = [None] * len(sizes) if bias is None else bias.split_with_sizes(sizes)
        return tuple(map(linear_of, self.weight(module).split_with_sizes(sizes), biases))


class TransformersConv1dKind(LinearKind):
    """`transformers.pytorch_utils.Conv1D`: a linear layer whose weight is stored as in × out."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        """Empty before transformers is imported, and it is not imported here."""
        own = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
        return () if own is None else (own,)

    def weight(self, module: nn.Module) -> Tensor:
        return module.get_parameter("weight").T

    def as_kept(self, weight: Tensor) -> Tensor:
        return weight.T
