"""Tensor trains of three cores: how a weight is cut into modes, and the cores that are closest to a layer's outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import decompose

from .cores import (
    SWEEPS,
    UNKNOWNS,
    best_end,
    halves,
    is_solved,
    least_squares,
    marginal_roots,
    ridged,
    thirds,
)

Three = tuple[int, int, int]


def modes(shape: tuple[int, ...]) -> tuple[Three, Three]:
    """The three modes of the outputs and of the inputs: those of a core each; a kernel belongs to the middle core.

    >>> modes((64, 128)), modes((64, 128, 3, 3))
    (((4, 4, 4), (4, 4, 8)), ((64, 1, 1), (8, 1, 16)))
    """
    if math.prod(shape[2:]) == 1:
        large, middle, small = thirds(shape[0])[::-1]
        return (large, middle, small), thirds(shape[1])
    small, large = halves(shape[1])
    return (shape[0], 1, 1), (small, 1, large)


def as_train(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "first middle last"]:
    """The weight with a mode for each core: (out₁·in₁) × (out₂·in₂·kernel) × (out₃·in₃).

    >>> as_train(torch.zeros(64, 128, 3, 3)).shape
    torch.Size([512, 9, 16])
    """
    m, n = modes(tuple(weight.shape))
    cut = weight.reshape(*m, *n, -1).permute(0, 3, 1, 4, 6, 2, 5)
    return cut.reshape(m[0] * n[0], -1, m[2] * n[2])


@dataclass(frozen=True)
class Cores:
    """The three of a train; the modes of a core are an output's and an input's, and in the middle the kernel's."""

    first: Float[Tensor, "a i rank_1"]
    middle: Float[Tensor, "rank_1 b j rank_2"]
    last: Float[Tensor, "c k rank_2"]

    def orthonormal(self) -> Cores:
        """The same train, the first and the last core with orthonormal components."""
        first, one = torch.linalg.qr(self.first.flatten(0, 1))
        last, two = torch.linalg.qr(self.last.flatten(0, 1))
        middle = torch.einsum("rp,pbjq,sq->rbjs", one, self.middle, two)
        return Cores(first.view_as(self.first), middle, last.view_as(self.last))

    def packed(self) -> Tensor:
        """All numbers, one core after the other."""
        return torch.cat([each.flatten() for each in (self.first, self.middle, self.last)])


class Outputs:
    """The metric of a layer's outputs, with the modes of a train: outputs a, b, c and inputs i, j, k.

    The kernel is in j: of the patch, in the order in₁ · in₂ · in₃ · kernel, the last two are exchanged.
    """

    def __init__(self, weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"]) -> None:
        m, n = modes(tuple(weight.shape))
        pixels = math.prod(weight.shape[2:])
        C = ridged(moment).view(*n, pixels, *n, pixels).transpose(2, 3).transpose(-2, -1)
        self.sizes: Three = (n[0], n[1] * pixels, n[2])
        self.C = C.reshape(*self.sizes, *self.sizes).contiguous()
        inputs = weight.to(torch.float64).reshape(-1, *n, pixels).transpose(-2, -1).flatten(1)
        self.W = inputs.view(*m, *self.sizes)
        self.WC = (inputs @ self.C.flatten(3).flatten(0, 2)).view_as(self.W)

    def start(self) -> Cores:
        """Cores of all ranks, those of lower ones being corners: the closest if C were a product of one for each mode.

        With R₁, R₂, R₃ the roots of the modes' moments, the train of W ×ᵢ R₁ ×ⱼ R₂ ×ₖ R₃ (TT-SVD), led back.
        """
        one, two, three = roots = marginal_roots(self.C.flatten(3).flatten(0, 2), self.sizes)
        T = torch.einsum("abcijk,il,jm,kn->albmcn", self.W, *roots)
        first = decompose(T.flatten(2).flatten(0, 1)).left
        last = decompose(T.flatten(4).flatten(0, 3).T).left
        first, last = (each.view(*T.shape[at : at + 2], -1) for each, at in ((first, 0), (last, 4)))
        middle = torch.einsum("albmcn,alp,cnq->pbmq", T, first, last)
        return Cores(
            torch.linalg.solve(one, first),
            torch.linalg.solve(two, middle),
            torch.linalg.solve(three, last),
        )

    def closer(self, cores: Cores) -> Cores:
        """By alternating least squares: the middle core, the first and the last one, and so on."""
        cores = self._with_middle(cores.orthonormal())
        for _ in range(SWEEPS):
            cores = self._with_first(cores).orthonormal()
            cores = self._with_last(cores).orthonormal()
            cores = self._with_middle(cores)
        return cores

    def _with_first(self, cores: Cores) -> Cores:
        i, j, k = self.sizes
        if not is_solved(cores.first.shape[2], i, i * j * k):
            return cores
        others = torch.einsum("pbjq,ckq->pbcjk", cores.middle, cores.last).flatten(3).flatten(1, 2)
        wanted = self.WC.permute(0, 3, 1, 2, 4, 5).flatten(4).flatten(2, 3)
        return Cores(best_end(wanted, self.C.view(i, j * k, i, j * k), others), cores.middle, cores.last)

    def _with_last(self, cores: Cores) -> Cores:
        i, j, k = self.sizes
        if not is_solved(cores.last.shape[2], k, i * j * k):
            return cores
        others = torch.einsum("aip,pbjq->qabij", cores.first, cores.middle).flatten(3).flatten(1, 2)
        wanted = self.WC.permute(2, 5, 0, 1, 3, 4).flatten(4).flatten(2, 3)
        metric = self.C.permute(2, 0, 1, 5, 3, 4).reshape(k, i * j, k, i * j)
        return Cores(cores.first, cores.middle, best_end(wanted, metric, others))

    def _with_middle(self, cores: Cores) -> Cores:
        i, j, k = self.sizes
        (p, b, _, q), C = cores.middle.shape, self.C
        if p * j * q > UNKNOWNS or not is_solved(p, i, i * j * k):
            return cores
        firsts = torch.einsum("aip,alr->iplr", cores.first, cores.first)
        lasts = torch.einsum("ckq,cus->kqus", cores.last, cores.last)
        gram = torch.einsum("pjkrtu,kqus->pjqrts", torch.einsum("iplr,ijkltu->pjkrtu", firsts, C), lasts)
        right = torch.einsum("abcijk,aip,ckq->bpjq", self.WC, cores.first, cores.last).reshape(b, -1)
        middle = least_squares(gram.reshape(p * j * q, -1), right).view(b, p, j, q)
        return Cores(cores.first, middle.transpose(0, 1), cores.last)
