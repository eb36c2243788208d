"""Canonical polyadic decomposition: a 1×1 convolution, one filter for each channel, a 1×1 convolution."""

from __future__ import annotations

import math
from typing import Final

import tensorly
import torch
from tensorly.decomposition import parafac
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, outer_fit, outer_fits

Factors = tuple[Float[Tensor, "a rank"], Float[Tensor, "b rank"], Float[Tensor, "c rank"]]

SWEEPS: Final = 50  # with line search; four times as many gain about one hundredth of the error
TOLERANCE: Final = 1e-5  # of the error relative to the weight's norm, from one sweep to the next
RIDGE: Final = 1e-6  # on a weight of norm one; keeps pairs of components from diverging (degeneracy)
NUDGE: Final = 0.1  # length of what is added to each unit vector of the start
SPAN: Final = 2  # singular vectors of each mode in which components are sought, per component


def out_unfolding(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "out n"]:
    """Mode 0: out × (in·kernel)."""
    return weight.flatten(1)


def in_unfolding(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "inputs columns"]:
    """Mode 1: in × (out·kernel)."""
    return weight.transpose(0, 1).flatten(1)


def space_unfolding(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "pixels channels"]:
    """Mode 2, the dimensions of the kernel taken as one: kernel × (out·in)."""
    return weight.flatten(2).movedim(2, 0).flatten(1)


class CP(Factorization):
    """W[o, i, s] = Σᵣ A[o, r]·B[i, r]·C[s, r], s a place of the kernel: a sum of `rank` separable filters.

    Lebedev et al., "Speeding-up convolutional neural networks using fine-tuned CP-decomposition" (ICLR 2015),
    with the dimensions of the kernel kept together. Parameters rank·(in + kernel + out). Fitted by alternating least
    squares in the Tucker-compressed coordinates (Bro and Andersson 1998), once for each rank; the three vectors
    of a component get the same norm. A kernel of one pixel is a matrix: there it does not apply (use the SVD), nor to
    grouped convolutions.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        out_features, in_features = layer.out_features, layer.in_features
        pixels = math.prod(layer.kernel)
        if pixels == 1 or layer.groups > 1:
            return ()
        break_even = out_features * in_features * pixels // (out_features + in_features + pixels)
        return (Axis("rank", 1, max(1, break_even), (out_unfolding, in_unfolding, space_unfolding)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.outer = self.factor(layer.out_features, rank)
        self.inner = self.factor(layer.in_features, rank)
        self.space = self.factor(math.prod(layer.kernel), rank)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        factors = (self.outer, self.inner, self.space)
        rank = self.outer.shape[1]
        stacked = bases.memo(f"cp-{rank}", lambda: torch.cat(components(weight, bases, rank)).to(weight.dtype))
        for factor, solved in zip(factors, torch.split(stacked, [len(factor) for factor in factors]), strict=True):
            factor.copy_(solved)
        if bases.moment is not None:
            self.outer.copy_(self._best_outer(weight, bases.moment))

    def _best_outer(
        self, weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"]
    ) -> Float[Tensor, "out rank"]:
        """The last factor again, so that the layer's outputs are met as well as the first two allow."""
        seen = torch.einsum("ir,sr->isr", self.inner, self.space).flatten(0, 1)  # n × rank
        return outer_fit(outer_fits(weight, seen, moment), seen.shape[1])

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.outer.copy_(matrix @ self.outer)
        return True

    def dense(self) -> Tensor:
        return torch.einsum("or,ir,sr->ois", self.outer, self.inner, self.space).view(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        rank = self.outer.shape[1]
        filters = self.space.T.reshape(rank, 1, *self.layer.kernel)
        narrow = self.layer.mix(x, self.inner.T)
        return self.layer.mix(self.layer.operate(narrow, filters, groups=rank), self.outer, self.bias)


def components(weight: Float[Tensor, "out inputs ..."], bases: Bases, rank: int) -> Factors:
    """A (out × rank), B (in × rank), C (kernel × rank) with W ≈ Σᵣ aᵣ∘bᵣ∘cᵣ in the least-squares sense.

    The weight is first written in the coordinates of its leading singular vectors, at most `SPAN`·rank of each
    mode: G = W ×₁ Uᵀ ×₂ Vᵀ ×₃ Sᵀ. G is solved and the factors are expanded (A = U·A_G, …), which is exact while
    nothing is cut off, and otherwise leaves out what `rank` components could hardly use (Bro and Andersson,
    "Improving the speed of multiway algorithms II: compression", 1998).

    A zero weight gives zero factors. ALS finds a local optimum: near the best, not surely the best.
    Complexity: O(sweeps·rank·|G|).
    """
    exact = weight.flatten(2).to(torch.float64)
    scale = torch.linalg.vector_norm(exact)
    unfoldings = (out_unfolding, in_unfolding, space_unfolding)
    U, V, S = (bases(unfolding).left[:, : SPAN * rank].to(torch.float64) for unfolding in unfoldings)
    core = torch.einsum("ois,oa,ib->abs", exact, U, V) @ S  # at most 2·rank of each mode
    if scale == 0:
        return balanced((U.new_zeros(len(U), rank), V.new_zeros(len(V), rank), S.new_zeros(len(S), rank)))
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        _, (a, b, c) = parafac(
            core / scale,
            rank,
            init=(None, leading_start(core, rank)),
            n_iter_max=SWEEPS,
            tol=TOLERANCE,
            l2_reg=RIDGE,
            linesearch=True,
        )
    return balanced((U @ a * scale, V @ b, S @ c))


def leading_start(core: Float[Tensor, "a b c"], rank: int) -> list[Tensor]:
    """For each mode of G its leading singular vectors, nudged; in its own coordinates they are unit vectors.

    Where a mode has fewer than `rank`, the rest is drawn. The nudge leads off saddle points, where a weight with
    symmetries would stay. All chance comes from a generator of its own, always the same.
    """
    generator = torch.Generator().manual_seed(0)
    start = []
    for size in core.shape:
        drawn = torch.randn(size, rank, generator=generator, dtype=core.dtype) / size**0.5
        leading = min(size, rank)
        drawn[:, :leading] *= NUDGE
        start.append((torch.eye(size, rank, dtype=core.dtype) + drawn).to(core.device))
    return start


def balanced(factors: Factors) -> Factors:
    """The same components with the norm of each shared evenly among its three vectors; zero stays zero."""
    a, b, c = factors
    norms = [torch.linalg.vector_norm(factor, dim=0) for factor in factors]
    shared = torch.stack(norms).prod(0) ** (1 / 3)
    scales = [torch.where(norm > 0, shared / norm, 0.0) for norm in norms]
    return a * scales[0], b * scales[1], c * scales[2]
