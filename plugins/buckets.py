"""Buckets: all entries of a weight share a few numbers, each the one that a hash of its place says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from rank_search.basics import Float, Int
from rank_search.layers import Axis, Bases, Factorization, Layer, fit_closer

FACTOR: Final = 0x45D9F3B
BITS: Final = 32
STEPS: Final = 20  # of conjugate gradients
SOLVED: Final = 2048  # inputs up to which the outputs are looked at
RIDGE: Final = 1e-6  # of the mean diagonal entry


def hashed(size: int, values: int, device: torch.device | None = None) -> Int[Tensor, " {size}"]:
    """A number below `values` for each place, the same on every machine: Mueller's hash of whole numbers of 32 bits.

    Shifted, mixed and multiplied, twice: of the numbers of 32 bits it is a permutation. It is in whole numbers of 64
    bits, in which none of this is cut off, as there are fewer than 2³¹ values. O(size).

    >>> hashed(6, 10).tolist()
    [1, 4, 8, 8, 1, 7]
    >>> torch.equal(hashed(9, 10)[:6], hashed(6, 10))
    True
    """
    mixed = torch.arange(1, size + 1, device=device)
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * FACTOR) & (2**BITS - 1)
    return ((mixed ^ (mixed >> 16)) * values) >> BITS


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], left: Float[Tensor, " k"], diagonal: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """An x of A·x = b, or what `STEPS` steps from zero make of it; each takes ½xᵀAx − bᵀx further down.

    The last one is that after which nothing but rounding is left of b: further ones would follow that anywhere.

    Args:
        apply: the product with A, symmetric and positive semidefinite.
        left: b.
        diagonal: of A, about: what the steps are scaled by.

    >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradients(lambda x: A @ x, torch.tensor([3.0, 4.0]), A.diagonal()).round(decimals=4).tolist()
    [1.0, 1.0]
    """
    scale = torch.where(diagonal > 0, 1 / diagonal, 1.0)
    found, step = torch.zeros_like(left), scale * left
    size = first = left @ step
    for _ in range(STEPS):
        seen = apply(step)
        if not (most := float(step @ seen)) > 0 or size <= torch.finfo(left.dtype).eps * first:
            break
        found, left = found + size / most * step, left - size / most * seen
        before, size = size, left @ (scale * left)
        step = scale * left + size / before * step
    return found


def in_metric(difference: Float[Tensor, "out ..."], moment: Float[Tensor, "*groups n n"]) -> Float[Tensor, "out n"]:
    """D·C, with a moment for each block of a grouped layer.

    >>> in_metric(torch.ones(2, 1), torch.tensor([[[2.0]], [[3.0]]])).tolist()
    [[2.0], [3.0]]
    """
    rows = difference.flatten(1)
    return rows @ moment if moment.dim() == 2 else (rows.view(len(moment), -1, rows.shape[1]) @ moment).view_as(rows)


def ridged(moment: Float[Tensor, "*groups n n"]) -> Float[Tensor, "*groups n n"]:
    """In float64; inputs that never occur keep their weight, and where the moment is zero all do."""
    C = moment.to(torch.float64)
    ridge = RIDGE * float(C.diagonal(dim1=-2, dim2=-1).mean()) or 1.0
    return C + ridge * torch.eye(C.shape[-1]).to(C)


class Buckets(Factorization):
    """W[e] = ±v[h(e)]: each entry of the weight has the number of its bucket, and a sign, by a hash of its place.

    Chen, Wilson, Tyree, Weinberger, Chen, "Compressing neural networks with the hashing trick" (ICML 2015). The hash is
    code, and nothing of it is stored: as many parameters as buckets, and the layer's own operation with its MACs. The
    fit to the weight, the mean of the entries of each bucket with their signs, is the closest there is; the one to the
    outputs is least squares by conjugate gradients, at most `STEPS` from there. With more inputs than `SOLVED` it is
    that to the weight. Not for embeddings, of which a row would have to be made with the whole table.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return () if layer.one_hot else (Axis("buckets", 1, math.prod(layer.shape)),)

    def __init__(self, layer: Layer, *, buckets: int) -> None:
        super().__init__(layer, buckets=buckets)
        self.buckets = buckets
        self.shared = self.factor(1, buckets)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        entries = weight.to(torch.float64)
        self.shared.copy_(self._summed(entries) / self._totals(torch.ones_like(entries)).clamp_min(1))

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        """With S the table of signs, v with SᵀSC·v = SᵀWC; what the plain v leaves of it is SᵀRC, R = W − W'.

        C with a ridge, so that what the inputs leave open stays near the weight.
        """
        if moment.shape[-1] > SOLVED:
            return
        C, W = ridged(moment), weight.to(torch.float64)
        plain = self.shared[0].to(torch.float64)
        left = self._summed(in_metric(W - self._spread(plain), C))
        rows = C.diagonal(dim1=-2, dim2=-1).view(self.layer.groups, 1, -1)
        diagonal = self._totals(rows.expand(-1, len(W) // self.layer.groups, -1))
        self.shared.copy_(
            plain + conjugate_gradients(lambda v: self._summed(in_metric(self._spread(v), C)), left, diagonal)
        )

    def _slots(self) -> Int[Tensor, " entries"]:
        """Of each entry its place in (v, −v)."""
        return hashed(math.prod(self.layer.shape), 2 * self.buckets, self.shared.device)

    def _spread(self, shared: Float[Tensor, " buckets"]) -> Tensor:
        return torch.cat([shared, -shared]).index_select(0, self._slots()).view(self.layer.shape)

    def _summed(self, entries: Tensor) -> Float[Tensor, " buckets"]:
        """Of each bucket, with their signs."""
        halves = self._halves(entries)
        return halves[0] - halves[1]

    def _totals(self, entries: Tensor) -> Float[Tensor, " buckets"]:
        """Of each bucket, without."""
        return self._halves(entries).sum(0)

    def _halves(self, entries: Tensor) -> Float[Tensor, "2 buckets"]:
        flat = entries.reshape(-1)
        return flat.new_zeros(2 * self.buckets).index_add_(0, self._slots(), flat).view(2, -1)

    def dense(self) -> Tensor:
        return self._spread(self.shared[0])
