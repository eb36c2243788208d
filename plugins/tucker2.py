"""Tucker-2: a 1×1 convolution to rank_in channels, a small core with the layer's kernel, a 1×1 convolution back."""

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
    fit_closer,
    nested_span,
    outer_fit,
    outer_fits,
    seen_outputs,
)


def out_unfolding(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "out n"]:
    """Mode 0: out × (in·kernel)."""
    return weight.flatten(1)


def in_unfolding(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "inputs columns"]:
    """Mode 1: in × (out·kernel)."""
    return weight.transpose(0, 1).flatten(1)


class Tucker2(Factorization):
    """W = G ×₁ U ×₂ V: U (out × rank_out) and V (in × rank_in) orthonormal, core G (rank_out × rank_in × kernel).

    Kim et al., "Compression of deep convolutional neural networks for fast and low power mobile applications"
    (ICLR 2016). Fitted by the truncated higher-order SVD (De Lathauwer, De Moor, Vandewalle 2000): U and V are
    leading singular vectors, and the core of every pair of ranks is a corner of the full core. So its squared
    error is at most the sum of the two squared tails, and at least the larger one. Parameters
    out·rank_out + rank_out·rank_in·kernel + in·rank_in. A kernel of one pixel is a matrix, for which the SVD
    is the same thing with fewer parameters: there it does not apply, nor
    to grouped convolutions.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        pixels = math.prod(layer.kernel)
        if pixels == 1 or layer.groups > 1:
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
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        left, right = bases(out_unfolding).left, bases(in_unfolding).left
        core = bases.memo("tucker2-core", lambda: _full_core(weight, left, right))
        rank_out, rank_in = self.core.shape[:2]
        self.outer.copy_(left[:, :rank_out])
        self.inner.copy_(right[:, :rank_in])
        self.core.copy_(core[:rank_out, :rank_in])

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        """V from the inputs' moment over channels; then U and the core, the best ones for this V in closed form.

        The best map A from what V lets through to the outputs is cut to its leading rank_out directions. V is the best
        only as far as the moment is a product of one over channels and one over pixels, so the plain fit is kept where
        it comes closer.
        """
        rank_out, rank_in = self.core.shape[:2]
        span = bases.memo("tucker2-inner", lambda: channel_span(weight, moment))
        fits = bases.memo("tucker2-outer", lambda: outer_fits(weight, seen_by_core(span, weight), moment))
        width = rank_in * math.prod(weight.shape[2:])
        outputs = seen_outputs(fits, width)
        outer = torch.linalg.eigh(outputs @ outputs.T).eigenvectors.flip(-1)[:, :rank_out]
        self.inner.copy_(span[:, :rank_in])
        self.outer.copy_(outer)
        self.core.copy_(outer_fit(fits, width, outer).view_as(self.core))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        outer, mixed = torch.linalg.qr(matrix @ self.outer)
        self.outer.copy_(outer)
        self.core.copy_((mixed @ self.core.flatten(1)).view_as(self.core))
        return True

    def dense(self) -> Tensor:
        return torch.einsum("oa,ab...,ib->oi...", self.outer, self.core, self.inner)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.layer.mix(x, self.inner.T)
        return self.layer.mix(self.layer.operate(narrow, self.core), self.outer, self.bias)

    def frames(self) -> Iterable[Tensor]:
        return (self.outer, self.inner)


def channel_span(
    weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"]
) -> Float[Tensor, "inputs inputs"]:
    """Orthonormal combinations of input channels (in × in), the ones that matter most for the outputs first."""
    in_features, pixels = weight.shape[1], math.prod(weight.shape[2:])
    by_channel = moment.view(in_features, pixels, in_features, pixels).diagonal(dim1=1, dim2=3).mean(-1)
    return nested_span(in_unfolding(weight), by_channel).to(weight.dtype)


def seen_by_core(span: Float[Tensor, "inputs r"], weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "n width"]:
    """What the core sees of a patch: V ⊗ I, (in·kernel) × (rank_in·kernel)."""
    return torch.kron(span.contiguous(), torch.eye(math.prod(weight.shape[2:])).to(span))


def _full_core(
    weight: Float[Tensor, "out inputs ..."], left: Float[Tensor, "out a"], right: Float[Tensor, "inputs b"]
) -> Float[Tensor, "a b ..."]:
    """W ×₁ Uᵀ ×₂ Vᵀ with all singular vectors, contracted in float64."""
    exact = (tensor.to(torch.float64) for tensor in (left, weight, right))
    return torch.einsum("oa,oi...,ib->ab...", *exact).to(weight.dtype)
