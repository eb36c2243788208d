"""Singular value decompositions of blocks of input channels: a grouped convolution, then a 1×1 convolution back."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterable
from typing import ClassVar, Final, final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import (
    Axis,
    Bases,
    Factorization,
    Layer,
    cholesky,
    decompose,
    fit_closer,
    nested_span,
    outer_fit,
    outer_fits,
)

SWEEPS: Final = 2  # the first brings most of what there is to gain
RIDGE: Final = 1e-6  # of the mean diagonal entry
SOLVED: Final = 2048  # inputs up to which blocks are solved for one after the other


def of_blocks(weight: Float[Tensor, "out inputs ..."], blocks: int) -> Float[Tensor, "{blocks} columns out"]:
    """What each block of input channels does: a row for each place of each of its channels."""
    return weight.reshape(len(weight), blocks, -1).permute(1, 2, 0)


def plain_bases(weight: Float[Tensor, "out inputs ..."], blocks: int) -> Float[Tensor, "{blocks} rows k"]:
    """The singular vectors of each block (columns × k), over the block in these coordinates (out × k)."""
    found = [decompose(block) for block in of_blocks(weight, blocks)]
    return torch.stack([torch.cat([basis.left, basis.projected.T]) for basis in found])


def block_spans(
    weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"], blocks: int
) -> Float[Tensor, "{blocks} columns k"]:
    """What to see of each block, orthonormal, what matters most for the outputs first; at most as many as outputs."""
    size = len(moment) // blocks
    own = moment.view(blocks, size, blocks, size).diagonal(dim1=0, dim2=2).movedim(-1, 0)  # of each block's inputs
    spans = [nested_span(*each) for each in zip(of_blocks(weight, blocks), own, strict=True)]
    return torch.stack(spans)[..., : len(weight)].to(weight.dtype)


def seen_by_outer(spans: Float[Tensor, "blocks columns k"]) -> Float[Tensor, "n width"]:
    """What the last factor sees of a patch: the first direction of every block, then the second of every block, …"""
    blocks = torch.eye(len(spans)).to(spans)
    return torch.einsum("gnr,gh->gnrh", spans, blocks).flatten(2).flatten(0, 1)


def closer_to_outputs(
    weight: Float[Tensor, "out inputs ..."],
    moment: Float[Tensor, "n n"],
    start: tuple[Float[Tensor, "out blocks rank"], Float[Tensor, "blocks rank columns"]],
) -> Float[Tensor, "blocks rows rank"]:
    """The rows of B of each block (columns × rank, orthonormal) over its columns of A (out × rank), block after block.

    Where all other blocks stay, W' − W in the metric C of the inputs is that of the block g alone from the target
    T = W'_g + (W − W')·C_:g·C_gg⁻¹ in the metric C_gg, for which a singular value decomposition has the closest of its
    rank. `SWEEPS` times for all blocks. Complexity: O(sweeps·n²·out).
    """
    W, C = weight.flatten(1).to(torch.float64), moment.to(torch.float64)
    C = C + (RIDGE * float(C.diagonal().mean()) or 1.0) * torch.eye(len(C)).to(C)
    outer, inner = (each.to(torch.float64) for each in start)
    found = torch.einsum("ogr,grn->ogn", outer, inner).flatten(1)  # W'
    factors: list[Tensor] = []
    for _ in range(SWEEPS):
        factors = []
        for own in torch.arange(len(C)).chunk(len(inner)):
            L = cholesky(C[own][:, own])
            target = found[:, own] + torch.cholesky_solve(((W - found) @ C[:, own]).T, L).T
            U, s, Vh = torch.linalg.svd(target @ L, full_matrices=False)
            rank = inner.shape[1]
            seen = torch.linalg.solve_triangular(L.T, Vh[:rank].T, upper=True)  # (Vh·L⁻¹)ᵀ
            Q, R = torch.linalg.qr(seen)
            made = (U[:, :rank] * s[:rank]) @ R.T
            found[:, own] = made @ Q.T
            factors.append(torch.cat([Q, made]))
    return torch.stack(factors).to(weight.dtype)


class BlockSVD(Factorization, ABC):
    """W = [A₁·B₁ | … | A_k·B_k], a product of rank r for each of k blocks of input channels.

    The form of ALDS (Liebenwein et al., "Compressing neural networks: towards determining the optimal layer-wise
    decomposition", NeurIPS 2021). B (k × rank × in/k·kernel, orthonormal rows) is a grouped convolution, A (out × k ×
    rank) a 1×1 convolution. Parameters rank·(in·kernel + k·out), MACs as many per output position. Fitted to the
    weight, each block is the closest there is (Eckart–Young); to the outputs, first B for each block as if it were
    alone and A for all of them, in closed form for all ranks at once, then one block after the other given the rest,
    once for each rank. For layers without groups and of more than one input channel.

    Attributes:
        most: k is the largest divisor of the number of input channels that is not above it.
        blocks: k.
    """

    any_geometry = True
    most: ClassVar[int]

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        if layer.groups > 1 or layer.one_hot or layer.in_features == 1:
            return ()
        columns = layer.in_features // cls._count(layer) * math.prod(layer.kernel)
        return (Axis("rank", 1, min(layer.out_features, columns)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.rank, self.blocks = rank, self._count(layer)
        self.outer = self.factor(layer.out_features, self.blocks, rank)
        self.inner = self.factor(self.blocks, rank, layer.in_features // self.blocks, *layer.shape[2:])

    @classmethod
    def _count(cls, layer: Layer) -> int:
        return max(k for k in range(1, cls.most + 1) if layer.in_features % k == 0)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        self._set(bases.memo(f"block-svd-{self.blocks}", lambda: plain_bases(weight, self.blocks)))

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        self._set(bases.memo(f"block-svd-{self.blocks}-{self.rank}", lambda: self._solved(weight, bases, moment)))

    def _solved(self, weight: Tensor, bases: Bases, moment: Tensor) -> Tensor:
        """The best A for a B of each block's own inputs; block after block from there on, if they are not too many."""
        k, rank = self.blocks, self.rank
        spans = bases.memo(f"block-svd-{k}-inner", lambda: block_spans(weight, moment, k))
        fits = bases.memo(f"block-svd-{k}-outer", lambda: outer_fits(weight, seen_by_outer(spans), moment))
        inner = spans[..., :rank]
        outer = outer_fit(fits, rank * k).reshape(-1, rank, k).transpose(1, 2)
        if len(moment) > SOLVED:
            return torch.cat([inner, outer.transpose(0, 1).to(inner)], 1)
        return closer_to_outputs(weight, moment, (outer, inner.mT))

    def _set(self, stacked: Float[Tensor, "blocks rows k"]) -> None:
        """From B (columns × rank) over A (out × rank) of each block."""
        out_features, kept = self.layer.out_features, stacked[..., : self.rank]
        self.inner.copy_(kept[:, :-out_features].mT.reshape(self.inner.shape))
        self.outer.copy_(kept[:, -out_features:].transpose(0, 1))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.outer.copy_((matrix @ self.outer.flatten(1)).reshape(self.outer.shape))
        return True

    def dense(self) -> Tensor:
        return torch.einsum("ogr,gri...->ogi...", self.outer, self.inner).reshape(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.mix(self._seen(x), self.outer.flatten(1), self.bias)

    def _seen(self, x: Tensor) -> Tensor:
        """Channels: blocks, then rank."""
        if self.inner.dim() > 3:
            return self.layer.operate(x, self.inner.flatten(0, 1), groups=self.blocks)
        return torch.einsum("...gi,gri->...gr", torch.unflatten(x, -1, (self.blocks, -1)), self.inner).flatten(-2)

    def frames(self) -> Iterable[Tensor]:
        return tuple(block.flatten(1).T for block in self.inner)


@final
class FourBlocks(BlockSVD):
    """In at most four blocks."""

    most = 4


@final
class EightBlocks(BlockSVD):
    """In at most eight blocks."""

    most = 8


@final
class SixteenBlocks(BlockSVD):
    """In at most sixteen blocks."""

    most = 16
