"""Singular value decomposition: the layer's convolution to r channels, then a 1×1 convolution back."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer


def matrix(weight: Float[Tensor, "out ..."]) -> Float[Tensor, "out n"]:
    """The out × (in·kernel) unfolding; a linear weight is its own."""
    return weight.flatten(1)


class ChannelSVD(Factorization):
    """W = U·B: U (out × r, orthonormal columns), B (r × in·kernel) carries the singular values.

    Parameters r·(in·kernel + out), MACs r·(in·kernel + out) per output position. Equality in the spectrum bound
    (Eckart–Young): no matrix of rank r is closer. Where the layer's inputs are known, the same holds for its outputs:
    no weight of rank r comes closer to them (see `output_basis`). With groups each block is cut to r: two grouped
    convolutions, with r·(in·kernel + out) parameters, in the channels of all groups.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        full = min(layer.out_features // layer.groups, math.prod(layer.shape[1:]))
        if full == 1 and layer.groups > 1:
            return ()  # a block is one row, or one column
        return (Axis("rank", 1, full, (matrix,)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.left = self.factor(layer.out_features, rank)
        self.right = self.factor(layer.groups * rank, *layer.shape[1:])

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases.outputs(), self.left.shape[1]
        self.left.copy_(basis.left[..., :rank].reshape(self.left.shape))
        self.right.copy_(basis.projected[..., :rank, :].reshape(self.right.shape))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self._lead_back(matrix @ self.left)
        return True

    @torch.no_grad()
    def scale_outputs(self, scales: Tensor) -> bool:
        self._lead_back(scales[:, None] * self.left)
        return True

    def _lead_back(self, outer: Tensor) -> None:
        left, mixed = torch.linalg.qr(self.layer.by_group(outer))
        self.left.copy_(left.reshape(self.left.shape))
        self.right.copy_((mixed @ self.layer.by_group(self.right.flatten(1))).view_as(self.right))

    def dense(self) -> Tensor:
        left, right = self.layer.by_group(self.left), self.layer.by_group(self.right.flatten(1))
        return (left @ right).view(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.mix(self.layer.operate(x, self.right), self.left, self.bias)

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.left) @ self.right.flatten(1)

    def frames(self) -> Iterable[Tensor]:
        return self.left.chunk(self.layer.groups)
