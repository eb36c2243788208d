"""Spatial singular value decomposition: a kh×1 convolution to r channels, then a 1×kw convolution back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rank_search.layers import Axis, Bases, Factorization, Layer


def matrix(weight: Tensor) -> Tensor:
    """The (in·kh) × (out·kw) unfolding: everything the column filters see against all that the row filters do."""
    out_features, in_features, rows, columns = weight.shape
    return weight.permute(1, 2, 0, 3).reshape(in_features * rows, out_features * columns)


class SpatialSVD(Factorization):
    """W[o, i, y, x] = Σᵣ A[r, i, y]·B[o, r, x]: A (r × in × kh × 1, orthonormal), B (out × r × 1 × kw).

    The scheme of Jaderberg, Vedaldi and Zisserman (BMVC 2014), in the closed form of Tai et al. (ICLR 2016).
    Parameters r·(in·kh + out·kw); the first convolution has the row part of stride, padding and dilation, the
    second the column part.
    Equality in the spectrum bound (Eckart–Young). Kernels of one pixel have nothing to separate: there it is
    the plain SVD, so it does not apply.
    """

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        rows, columns = layer.kernel
        if rows * columns == 1:
            return ()
        full = min(layer.in_features * rows, layer.out_features * columns)
        return (Axis("rank", 1, full, (matrix,)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        rows, columns = layer.kernel
        self.down = self.factor(rank, layer.in_features, rows, 1)
        self.across = self.factor(layer.out_features, rank, 1, columns)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases(matrix), self.down.shape[0]
        self.down.copy_(basis.left[:, :rank].T.reshape(self.down.shape))
        by_output = basis.projected[:rank].view(rank, self.layer.out_features, 1, -1)
        self.across.copy_(by_output.transpose(0, 1))

    def dense(self) -> Tensor:
        return torch.einsum("riy,orx->oiyx", self.down.squeeze(3), self.across.squeeze(2))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer.along_rows().operate(x, self.down)
        return self.layer.along_columns().operate(rows, self.across, self.bias)

    def frames(self) -> Iterable[Tensor]:
        return (self.down.flatten(1).T,)
