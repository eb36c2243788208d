"""Spatial singular value decomposition: a kh×1 convolution to r channels, then a 1×kw convolution back."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, fit_closer, nested_span, outer_fit, outer_fits


def matrix(weight: Float[Tensor, "out inputs rows ..."]) -> Float[Tensor, "m n"]:
    """The (in·kh) × (out·kw) unfolding: everything the column filters see against all that the row filters do."""
    by_pixel = weight.flatten(3)  # out × in × kh × kw
    return by_pixel.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)


def column_span(weight: Float[Tensor, "out inputs rows ..."], moment: Float[Tensor, "n n"]) -> Float[Tensor, "m m"]:
    """Orthonormal column filters (in·kh × in·kh), the ones that matter most for the outputs first."""
    _, in_features, rows, columns = weight.flatten(3).shape
    by_column = moment.view(in_features, rows, columns, in_features, rows, columns).diagonal(dim1=2, dim2=5).mean(-1)
    size = in_features * rows
    return nested_span(matrix(weight), by_column.reshape(size, size)).to(weight.dtype)


def seen_by_rows(span: Float[Tensor, "m r"], weight: Float[Tensor, "out inputs rows ..."]) -> Float[Tensor, "n width"]:
    """What the row filters see of a patch: (in·kh·kw) × (r·kw), a column filter's response at each of kw places."""
    _, in_features, rows, columns = weight.flatten(3).shape
    filters = span.T.reshape(-1, in_features, rows, 1, 1) * torch.eye(columns).to(span)
    return filters.permute(1, 2, 3, 0, 4).reshape(in_features * rows * columns, -1)


class SpatialSVD(Factorization):
    """W[o, i, y, x] = Σᵣ A[r, i, y]·B[o, r, x]: A (r × in × kh × 1, orthonormal), B (out × r × 1 × kw).

    The scheme of Jaderberg, Vedaldi and Zisserman (BMVC 2014), in the closed form of Tai et al. (ICLR 2016).
    Parameters r·(in·kh + out·kw); the first convolution has the row part of stride, padding and dilation, the
    second the column part. In three dimensions the first of them stands for the rows, and the two others for the
    columns: a kt×1×1 convolution, then a 1×kh×kw one.
    Equality in the spectrum bound (Eckart–Young). Kernels of one dimension, or of one pixel, have nothing to separate:
    there it is the plain SVD, so it does not apply.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        rows, columns = layer.kernel[0], math.prod(layer.kernel[1:])
        if len(layer.kernel) < 2 or rows * columns == 1:
            return ()
        full = min(layer.in_features * rows, layer.out_features * columns)
        return (Axis("rank", 1, full, (matrix,)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        rows, *columns = layer.kernel
        self.down = self.factor(rank, layer.in_features, rows, *[1] * len(columns))
        self.across = self.factor(layer.out_features, rank, 1, *columns)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases(matrix), self.down.shape[0]
        self.down.copy_(basis.left[:, :rank].T.reshape(self.down.shape))
        by_output = basis.projected[:rank].view(rank, self.layer.out_features, -1)  # r × out × kw
        self.across.copy_(by_output.transpose(0, 1).reshape(self.across.shape))

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        """The column filters from the inputs' moment along a column, then the best row filters for these.

        The first are the best only as far as the moment is a product, so the plain fit is kept where it comes closer.
        """
        span = bases.memo("svd-spatial-down", lambda: column_span(weight, moment))
        fits = bases.memo("svd-spatial-across", lambda: outer_fits(weight, seen_by_rows(span, weight), moment))
        rank = self.down.shape[0]
        self.down.copy_(span[:, :rank].T.reshape(self.down.shape))
        self.across.copy_(outer_fit(fits, rank * self.across[0, 0].numel()).view(self.across.shape))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.across.copy_((matrix @ self.across.flatten(1)).view_as(self.across))
        return True

    def dense(self) -> Tensor:
        return torch.einsum("riy,orx->oiyx", self.down.flatten(2), self.across.flatten(2)).view(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer.along_rows().operate(x, self.down)
        return self.layer.along_columns().operate(rows, self.across, self.bias)

    def frames(self) -> Iterable[Tensor]:
        return (self.down.flatten(1).T,)
