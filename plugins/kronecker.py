"""Sums of Kronecker products: small filters on each chunk of the inputs, then coarse maps of the chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, decompose, fit_closer

from .cores import (
    SWEEPS,
    best_end,
    biased,
    halves,
    is_solved,
    marginal_roots,
    on_chunks,
    ridged,
)


def coarse_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Outputs and inputs of the coarse factors: of a matrix about half of each mode, of a convolution all outputs.

    >>> coarse_shape((64, 128)), coarse_shape((64, 128, 3, 3))
    ((8, 8), (64, 8))
    """
    out = halves(shape[0])[1] if len(shape) == 2 else shape[0]
    return out, halves(shape[1])[0]


def by_block(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "blocks places"]:
    """One row for each of the out₁ × in₁ blocks, one column for each place in a block (out₂ · in₂ · kernel)."""
    out, inputs = coarse_shape(tuple(weight.shape))
    return weight.reshape(out, -1, inputs, weight[0].numel() // inputs).transpose(1, 2).flatten(2).flatten(0, 1)


class Outputs:
    """The metric of a layer's outputs, with outputs (o₁, o₂) and inputs (i, q), q being in₂ and the kernel."""

    def __init__(self, weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"]) -> None:
        out, i = coarse_shape(tuple(weight.shape))
        W = weight.to(torch.float64).flatten(1)
        self.C = ridged(moment)
        self.W = W.view(out, -1, i, W.shape[1] // i)
        self.WC = (W @ self.C).view_as(self.W)

    def start(self) -> Tensor:
        """A (out₁·in₁ × k) over B (out₂·in₂·kernel × k): the closest of every rank if C were a product of i and q."""
        i, q = self.W.shape[2:]
        one, two = marginal_roots(self.C, (i, q))
        basis = decompose(torch.einsum("abiq,il,qm->albm", self.W, one, two).flatten(2).flatten(0, 1))
        coarse = torch.linalg.solve(one, basis.left.view(len(self.W), i, -1))
        fine = torch.linalg.solve(two, basis.projected.T.reshape(-1, q, coarse.shape[2]))
        return torch.cat([coarse.flatten(0, 1), fine.flatten(0, 1)])

    def closer(self, stacked: Float[Tensor, "rows rank"]) -> Float[Tensor, "rows rank"]:
        """From A over B to what alternating least squares makes of them: A for this B, then B for this A, and so on."""
        a, b, i, q = self.W.shape
        rank = stacked.shape[1]
        if not is_solved(rank, i, i * q):
            return stacked
        fine = stacked[a * i :].T.reshape(rank, b, q)
        coarse = self._coarse(fine)
        for _ in range(SWEEPS if is_solved(rank, q, i * q) else 0):
            coarse = torch.linalg.qr(coarse.flatten(0, 1))[0].view_as(coarse)
            metric = self.C.view(i, q, i, q).permute(1, 0, 3, 2)
            found = best_end(self.WC.permute(1, 3, 0, 2), metric, coarse.permute(2, 0, 1))
            fine = found.permute(2, 0, 1)
            coarse = self._coarse(fine)
        first, mixed = torch.linalg.qr(coarse.flatten(0, 1))
        return torch.cat([first, fine.flatten(1).T @ mixed.T])

    def _coarse(self, fine: Float[Tensor, "rank b q"]) -> Float[Tensor, "a i rank"]:
        i, q = self.W.shape[2:]
        return best_end(self.WC.transpose(1, 2), self.C.view(i, q, i, q), fine)


class KroneckerSum(Factorization):
    """W = Σᵣ Aᵣ ⊗ Bᵣ, coarse Aᵣ (out₁ × in₁), fine Bᵣ (out₂ × in₂ × kernel), out₁·out₂ = out, in₁·in₂ = in.

    Van Loan and Pitsianis, "Approximation with Kronecker products" (1993): with each block of the weight as one row of
    a matrix, r is that matrix's rank, and its best approximation the best sum of r products (Eckart–Young). So the fit
    to the weight is the closest there is, for all ranks at once. The fit to the outputs alternates between the coarse
    and the fine factors, each by least squares, once for each rank; if there are too many of them, it is a closed form.

    The inputs are cut into in₁ chunks, to each of which the layer is applied with the same r·out₂ small filters; the
    coarse factors mix what comes out. In₁ is the divisor of in next below its root. Of a convolution the coarse factors
    have all outputs (out₂ = 1): in₂ = 1 would be a basis of filters, in₁ = 1 an SVD, and this is between them. Of a
    matrix, out₂ is the divisor of out next below its root, as for in₁. Parameters r·(out₁·in₁ + out₂·in₂·kernel), MACs
    per position r·(in·out₂·kernel + out·in₁). Where in₁ = out₂ = 1 it does not apply, nor to grouped convolutions and
    embeddings.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        out, inputs = coarse_shape(layer.shape)
        if layer.groups > 1 or layer.one_hot or (out == layer.out_features and inputs == 1):
            return ()
        return (Axis("rank", 1, min(out * inputs, math.prod(layer.shape) // (out * inputs)), (by_block,)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        out, inputs = self.sizes = coarse_shape(layer.shape)
        self.rank = rank
        self.coarse = self.factor(out, inputs * rank)
        self.fine = self.factor(layer.out_features // out * rank, layer.in_features // inputs, *layer.shape[2:])

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        basis = bases(by_block)
        self._set(basis.left[:, : self.rank], basis.projected[: self.rank])

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        start = bases.memo("kronecker-sum-start", lambda: Outputs(weight, moment).start())[:, : self.rank]
        found = bases.memo(f"kronecker-sum-{self.rank}", lambda: Outputs(weight, moment).closer(start))
        rows = math.prod(self.sizes)
        self._set(found[:rows], found[rows:].T)

    def _set(self, coarse: Float[Tensor, "blocks rank"], fine: Float[Tensor, "rank places"]) -> None:
        by_output = fine.reshape(self.rank, -1, *self.fine.shape[1:]).transpose(0, 1)
        self.coarse.copy_(coarse.reshape(self.coarse.shape))
        self.fine.copy_(by_output.reshape(self.fine.shape))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        """Where the coarse factors have all outputs."""
        if len(self.coarse) < self.layer.out_features:
            return False
        coarse, mixed = torch.linalg.qr((matrix @ self.coarse).reshape(-1, self.rank))
        self.coarse.copy_(coarse.reshape(self.coarse.shape))
        self.fine.copy_((mixed @ self.fine.flatten(1)).reshape(self.fine.shape))
        return True

    def dense(self) -> Tensor:
        coarse = self.coarse.reshape(*self.sizes, self.rank)
        fine = self.fine.reshape(-1, self.rank, self.fine[0].numel())
        return torch.einsum("air,brq->abiq", coarse, fine).reshape(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        layer, at, inputs = self.layer, self.layer.channels, self.sizes[1]
        seen = on_chunks(layer, x, inputs, partial(layer.operate, weight=self.fine))
        seen = (
            torch.unflatten(seen, at, (-1, self.rank)).transpose(at - 2, at - 1).flatten(at - 2, at)
        )  # out₂, in₁, rank
        made = on_chunks(layer, seen, len(self.fine) // self.rank, partial(layer.mix, matrix=self.coarse))
        return biased(layer, made.transpose(at - 1, at).flatten(at - 1, at), self.bias)

    def frames(self) -> Iterable[Tensor]:
        return (self.coarse.reshape(-1, self.rank),)
