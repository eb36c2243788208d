"""Singular value decomposition: a k×k convolution to r channels, then a 1×1 convolution back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer


def matrix(weight: Float[Tensor, "out ..."]) -> Float[Tensor, "out inputs_kh_kw"]:
    """The out × (in·kh·kw) unfolding; a linear weight is its own."""
    return weight.flatten(1)


class ChannelSVD(Factorization):
    """W = U·B: U (out × r, orthonormal columns), B (r × in·kh·kw) carries the singular values.

    Parameters r·(in·kh·kw + out), MACs r·(in·kh·kw + out) per output position. Equality in the spectrum bound
    (Eckart–Young): no matrix of rank r is closer. Where the layer's inputs are known, the same holds for its outputs:
    no weight of rank r comes closer to them (see `output_basis`).
    """

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        rows, columns = layer.out_features, layer.in_features * layer.kernel[0] * layer.kernel[1]
        return (Axis("rank", 1, min(rows, columns), (matrix,)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.left = self.factor(layer.out_features, rank)
        self.right = self.factor(rank, *layer.shape[1:])

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases.outputs(), self.left.shape[1]
        self.left.copy_(basis.left[:, :rank])
        self.right.copy_(basis.projected[:rank].view_as(self.right))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self._lead_back(matrix @ self.left)
        return True

    @torch.no_grad()
    def scale_outputs(self, scales: Tensor) -> bool:
        self._lead_back(scales[:, None] * self.left)
        return True

    def _lead_back(self, outer: Tensor) -> None:
        left, mixed = torch.linalg.qr(outer)
        self.left.copy_(left)
        self.right.copy_((mixed @ self.right.flatten(1)).view_as(self.right))

    def dense(self) -> Tensor:
        return (self.left @ self.right.flatten(1)).view(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.mix(self.layer.operate(x, self.right), self.left, self.bias)

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.left) @ self.right.flatten(1)

    def frames(self) -> Iterable[Tensor]:
        return (self.left,)
