"""Linear layers: the weight is a matrix, and the last dimension of inputs and outputs has the channels."""

from __future__ import annotations

import math
import sys

import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.layers import Layer, LayerKind


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
