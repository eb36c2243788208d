"""Spatial singular value decomposition: a kh×1 convolution to r channels, then a 1×kw convolution back."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import (
    Axis,
    Bases,
    Factorization,
    Layer,
    by_block,
    fit_closer,
    nested_span,
    outer_fit,
    outer_fits,
)


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


def _row_fits(weight: Tensor, moment: Tensor, span: Tensor) -> Tensor:
    return outer_fits(weight, seen_by_rows(span, weight), moment)


class SpatialSVD(Factorization):
    """W[o, i, y, x] = Σᵣ A[r, i, y]·B[o, r, x]: A (r × in × kh × 1, orthonormal), B (out × r × 1 × kw).

    The scheme of Jaderberg, Vedaldi and Zisserman (BMVC 2014), in the closed form of Tai et al. (ICLR 2016).
    Parameters r·(in·kh + out·kw); the first convolution has the row part of stride, padding and dilation, the
    second the column part. In three dimensions the first of them stands for the rows, and the two others for the
    columns: a kt×1×1 convolution, then a 1×kh×kw one.
    Equality in the spectrum bound (Eckart–Young). With groups each block is a sum of r products: in a depthwise
    convolution the kernel of each channel, a matrix, is cut to rank r, which has r·(kh + kw) parameters a channel.
    Kernels of one dimension, or of one pixel, have nothing to separate: it would be the plain SVD, and does not apply.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        rows, columns = layer.kernel[0], math.prod(layer.kernel[1:])
        if len(layer.kernel) < 2 or rows * columns == 1:
            return ()
        full = min(layer.shape[1] * rows, layer.out_features // layer.groups * columns)
        if full == 1 and layer.groups > 1:
            return ()  # a block is one row, or one column
        return (Axis("rank", 1, full, (matrix,)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        rows, *columns = layer.kernel
        self.down = self.factor(layer.groups * rank, layer.shape[1], rows, *[1] * len(columns))
        self.across = self.factor(layer.out_features, rank, 1, *columns)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases(matrix), self.across.shape[1]
        self.down.copy_(basis.left[..., :rank].mT.reshape(self.down.shape))
        kept = basis.projected[..., :rank, :]
        by_output = kept.view(*kept.shape[:-1], -1, math.prod(self.layer.kernel[1:]))  # … r × out × kw
        self.across.copy_(by_output.transpose(-3, -2).reshape(self.across.shape))

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        """The column filters from the inputs' moment along a column, then the best row filters for these.

        The first are the best only as far as the moment is a product, so the plain fit is kept where it comes closer.
        """
        groups, rank = self.layer.groups, self.across.shape[1]
        span = bases.memo("svd-spatial-down", lambda: by_block(column_span, groups, weight, moment))
        fits = bases.memo("svd-spatial-across", lambda: by_block(_row_fits, groups, weight, moment, span))
        self.down.copy_(span[..., :rank].mT.reshape(self.down.shape))
        self.across.copy_(outer_fit(fits, rank * math.prod(self.layer.kernel[1:])).reshape(self.across.shape))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.across.copy_((matrix @ self.across.flatten(1)).view_as(self.across))
        return True

    def dense(self) -> Tensor:
        down, across = (self.layer.by_group(each.flatten(2)) for each in (self.down, self.across))
        return torch.einsum("...riy,...orx->...oiyx", down, across).reshape(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer.along_rows().operate(x, self.down)
        return self.layer.along_columns().operate(rows, self.across, self.bias)

    def frames(self) -> Iterable[Tensor]:
        return (self.down.flatten(1).T,) if self.layer.groups == 1 else ()  # a channel's own filters are short
