"""Tensor trains: the weight as a tensor of small modes, which is a chain of three cores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, fit_closer

from .cores import biased, on_chunks
from .train_fits import Cores, Outputs, as_train, modes


def first_unfolding(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "first others"]:
    """What the first rank cuts: the modes of the first core × all others."""
    return as_train(weight).flatten(1)


def last_unfolding(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "last others"]:
    """What the second rank cuts: the modes of the last core × all others."""
    return as_train(weight).flatten(0, 1).T


class TensorTrain(Factorization):
    """W[o₁o₂o₃, i₁i₂i₃, s] = Σ A[o₁, i₁, p]·G[p, o₂, i₂, s, q]·B[q, o₃, i₃], with s a place of the kernel.

    Oseledets, "Tensor-train decomposition" (SIAM J. Sci. Comput. 2011); for the matrix of a linear layer Novikov et
    al., "Tensorizing neural networks" (NIPS 2015). Outputs and inputs have three modes of about the same size; where
    there is a kernel, it is the middle core's (Garipov et al. 2016 have it first), all outputs are the first core's,
    and the inputs have two modes. Ranks: p is that of the (out₁·in₁) × … unfolding, q of the (out₃·in₃) × … one.
    The layer sees the last core first: 1×1, the layer's kernel, 1×1, each on chunks of the channels that are before it.

    Parameters out₁·in₁·p + p·out₂·in₂·kernel·q + q·out₃·in₃; MACs per position in·out₃·q +
    in₁·out₃·(in₂·q)·kernel·(out₂·p) + out·in₁·p, which may be more than the layer's: it saves parameters first.
    Fitted to the weight by the singular vectors of both unfoldings (TT-SVD from both ends, so that every pair of ranks
    is a corner of the full core): its squared error is at most the sum of the two squared tails, and at least the
    larger one. To the outputs by alternating least squares, once for each pair of ranks; in closed form where these
    are too large. Without chunks (in₁ = out₃ = 1) it would be an SVD or a Tucker-2: there it does not apply, nor to
    grouped convolutions and embeddings.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        m, n = modes(layer.shape)
        if layer.groups > 1 or layer.one_hot or m[2] * n[0] == 1:
            return ()
        first, middle, last = m[0] * n[0], m[1] * n[1] * math.prod(layer.kernel), m[2] * n[2]
        return (
            Axis("rank_1", 1, min(first, middle * last), (first_unfolding,)),
            Axis("rank_2", 1, min(last, first * middle), (last_unfolding,)),
        )

    def __init__(self, layer: Layer, *, rank_1: int, rank_2: int) -> None:
        super().__init__(layer, rank_1=rank_1, rank_2=rank_2)
        self.modes, self.ranks = modes(layer.shape), (rank_1, rank_2)
        m, n = self.modes
        self.first = self.factor(m[0], n[0] * rank_1)
        self.middle = self.factor(m[1] * rank_1, n[1] * rank_2, *layer.shape[2:])
        self.last = self.factor(m[2] * rank_2, n[2])

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        first, last = bases(first_unfolding).left, bases(last_unfolding).left
        middle = bases.memo("tensor-train-middle", lambda: full_middle(weight, first, last))
        self._set(self._corner(first, middle, last))

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        full = [int(axis.high) for axis in self.axes(self.layer)]
        found = bases.memo("tensor-train-start", lambda: Outputs(weight, moment).start().packed())
        cores = self._unpacked(found, *full)
        start = self._corner(cores.first.flatten(0, 1), cores.middle.flatten(1, 2), cores.last.flatten(0, 1))
        name = f"tensor-train-{self.ranks[0]}-{self.ranks[1]}"
        solved = bases.memo(name, lambda: Outputs(weight, moment).closer(start).packed())
        self._set(self._unpacked(solved, *self.ranks))

    def _unpacked(self, numbers: Tensor, p: int, q: int) -> Cores:
        m, n = self.modes
        shapes = ((m[0], n[0], p), (p, m[1], n[1] * math.prod(self.layer.kernel), q), (m[2], n[2], q))
        parts = torch.split(numbers, [math.prod(shape) for shape in shapes])
        return Cores(*(part.view(shape) for part, shape in zip(parts, shapes, strict=True)))

    def _corner(
        self, first: Float[Tensor, "a_i p"], middle: Float[Tensor, "p b_j q"], last: Float[Tensor, "c_k q"]
    ) -> Cores:
        """The first components of larger cores, as many as the ranks say."""
        m, n = self.modes
        p, q = self.ranks
        return Cores(
            first[:, :p].reshape(m[0], n[0], p),
            middle[:p, :, :q].reshape(p, m[1], -1, q),
            last[:, :q].reshape(m[2], n[2], q),
        )

    def _set(self, cores: Cores) -> None:
        m, n = self.modes
        p, q = self.ranks
        middle = cores.middle.reshape(p, m[1], n[1], -1, q).permute(1, 0, 2, 4, 3)
        self.first.copy_(cores.first.reshape(self.first.shape))
        self.middle.copy_(middle.reshape(self.middle.shape))
        self.last.copy_(cores.last.transpose(1, 2).reshape(self.last.shape))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        """Where all outputs are the first core's."""
        m, p = self.modes[0], self.ranks[0]
        if m[1] * m[2] > 1:
            return False
        first, mixed = torch.linalg.qr((matrix @ self.first).reshape(-1, p))
        self.first.copy_(first.reshape(self.first.shape))
        self.middle.copy_((mixed @ self.middle.flatten(1)).reshape(self.middle.shape))
        return True

    def dense(self) -> Tensor:
        m, n = self.modes
        p, q = self.ranks
        first, last = self.first.reshape(m[0], n[0], p), self.last.reshape(m[2], q, n[2])
        middle = self.middle.reshape(m[1], p, n[1], q, -1)
        return torch.einsum("aip,bpjqs,cqk->abcijks", first, middle, last).reshape(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        layer, at = self.layer, self.layer.channels
        (m, n), (p, q) = self.modes, self.ranks
        seen = on_chunks(layer, x, n[0] * n[1], partial(layer.mix, matrix=self.last))
        seen = torch.unflatten(torch.unflatten(seen, at, (m[2], q)), at - 2, n[:2])  # i₁, i₂, o₃, q
        seen = seen.transpose(at - 2, at - 1).flatten(at - 3, at)
        seen = on_chunks(layer, seen, n[0] * m[2], partial(layer.operate, weight=self.middle))
        seen = torch.unflatten(torch.unflatten(seen, at, (m[1], p)), at - 2, (n[0], m[2]))  # i₁, o₃, o₂, p
        seen = seen.transpose(at - 3, at - 1).flatten(at - 3, at)
        made = on_chunks(layer, seen, m[1] * m[2], partial(layer.mix, matrix=self.first))
        return biased(layer, made.transpose(at - 1, at).flatten(at - 1, at), self.bias)

    def frames(self) -> Iterable[Tensor]:
        (m, n), (p, q) = self.modes, self.ranks
        last = self.last.reshape(m[2], q, n[2]).transpose(1, 2)
        return (self.first.reshape(m[0] * n[0], p), last.reshape(m[2] * n[2], q))


def full_middle(
    weight: Float[Tensor, "out inputs ..."], first: Float[Tensor, "a p"], last: Float[Tensor, "c q"]
) -> Float[Tensor, "p b q"]:
    """The middle core for all singular vectors, contracted in float64."""
    exact = (tensor.to(torch.float64) for tensor in (as_train(weight), first, last))
    return torch.einsum("abc,ap,cq->pbq", *exact).to(weight.dtype)
