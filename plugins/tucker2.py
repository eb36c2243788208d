"""Tucker-2: a 1×1 convolution to rank_in channels, a small k×k core, a 1×1 convolution back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rank_search.layers import Axis, Bases, Factorization, Layer


def out_unfolding(weight: Tensor) -> Tensor:
    """Mode 0: out × (in·kh·kw)."""
    return weight.flatten(1)


def in_unfolding(weight: Tensor) -> Tensor:
    """Mode 1: in × (out·kh·kw)."""
    return weight.transpose(0, 1).flatten(1)


class Tucker2(Factorization):
    """W = G ×₁ U ×₂ V: U (out × rank_out) and V (in × rank_in) orthonormal, core G (rank_out × rank_in × kh × kw).

    Kim et al., "Compression of deep convolutional neural networks for fast and low power mobile applications"
    (ICLR 2016). Fitted by the truncated higher-order SVD (De Lathauwer, De Moor, Vandewalle 2000): U and V are
    leading singular vectors, and the core of every pair of ranks is a corner of the full core. So its squared
    error is at most the sum of the two squared tails, and at least the larger one. Parameters
    out·rank_out + rank_out·rank_in·kh·kw + in·rank_in. A kernel of one pixel is a matrix, for which the SVD
    is the same thing with fewer parameters: there it does not apply.
    """

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        pixels = layer.kernel[0] * layer.kernel[1]
        if pixels == 1:
            return ()
        out_features, in_features = layer.out_features, layer.in_features
        return (
            Axis("rank_out", 1, min(out_features, in_features * pixels), (out_unfolding,)),
            Axis("rank_in", 1, min(in_features, out_features * pixels), (in_unfolding,)),
        )

    def __init__(self, layer: Layer, *, rank_out: int, rank_in: int) -> None:
        super().__init__(layer, rank_out=rank_out, rank_in=rank_in)
        self.outer = self.factor(layer.out_features, rank_out)
        self.core = self.factor(rank_out, rank_in, *layer.kernel)
        self.inner = self.factor(layer.in_features, rank_in)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        left, right = bases(out_unfolding).left, bases(in_unfolding).left
        core = bases.memo("tucker2-core", lambda: _full_core(weight, left, right))
        rank_out, rank_in = self.core.shape[:2]
        self.outer.copy_(left[:, :rank_out])
        self.inner.copy_(right[:, :rank_in])
        self.core.copy_(core[:rank_out, :rank_in])

    def dense(self) -> Tensor:
        return torch.einsum("oa,abyx,ib->oiyx", self.outer, self.core, self.inner)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.layer.mix(x, self.inner.T)
        return self.layer.mix(self.layer.operate(narrow, self.core), self.outer, self.bias)

    def frames(self) -> Iterable[Tensor]:
        return (self.outer, self.inner)


def _full_core(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """W ×₁ Uᵀ ×₂ Vᵀ with all singular vectors, contracted in float64."""
    exact = (tensor.to(torch.float64) for tensor in (left, weight, right))
    return torch.einsum("oa,oiyx,ib->abyx", *exact).to(weight.dtype)
