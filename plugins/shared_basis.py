"""A basis of rows that the layers of a pool share: each layer mixes the same few channels in its own way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import (
    Axis,
    Bases,
    Layer,
    PooledFactorization,
    by_output,
    cholesky,
    decompose,
    outer_fit,
    outer_fits,
    pool_memo,
    times,
)

RIDGE: Final = 1e-6  # of the mean diagonal entry


def shared_rows(weights: Sequence[Tensor], moments: Sequence[Tensor]) -> Float[Tensor, "n k"]:
    """Orthonormal columns, the first r of them a basis for the rows of all the weights, for every r at once.

    Symbols: C is the mean of the moments, each over its mean diagonal entry, S·Sᵀ = C, and Y has the rows of all W_l·S
    below each other, each weight over its norm ‖W_l·S‖. With Y = Σ sᵢ·uᵢ·qᵢᵀ, the weights V_l·U closest to the W_l, in
    the sum of the relative squared errors on inputs of moment C, have the rows U = Q_rᵀ·S⁻¹ (Eckart–Young). Returned is
    S⁻ᵀ·Q, made orthonormal in its order (QR), which leaves the span of the first r as it is. O(n²·(n + Σ out)).
    """
    sizes = [float((each if each.dim() == 1 else each.diagonal()).to(torch.float64).mean()) for each in moments]
    C = sum(
        (each.to(torch.float64) / size for each, size in zip(moments, sizes, strict=True) if size > 0), torch.zeros(())
    )
    rows = [weight.flatten(1).to(torch.float64) for weight in weights]
    S = _root(torch.zeros_like(moments[0], dtype=torch.float64) + C)
    seen = [times(each, S) for each in rows]
    Q = decompose(torch.cat([each / (torch.linalg.vector_norm(each) or 1.0) for each in seen]).T).left
    P = Q / S[:, None] if S.dim() == 1 else torch.linalg.solve_triangular(S.T, Q, upper=True)
    orthonormal: Tensor = torch.linalg.qr(P)[0]
    return orthonormal


def _root(C: Tensor) -> Tensor:
    """S with S·Sᵀ = C and a ridge, or of a diagonal the diagonal of it."""
    diagonal = C if C.dim() == 1 else C.diagonal()
    ridge = RIDGE * float(diagonal.mean()) or 1.0
    return (C + ridge).sqrt() if C.dim() == 1 else cholesky(C + ridge * torch.eye(len(C)).to(C))


@final
class SharedBasis(PooledFactorization):
    """W_l = V_l·U: U (r × in·kernel, orthonormal rows) is that of all layers of the pool, V_l (out × r) each one's own.

    Basis sharing: Wang et al. 2024, arXiv:2410.03765, for language models. The layer's convolution to r channels, then
    a 1×1 convolution back, as the plain SVD: MACs r·(in·kernel + out) per output position in every layer, but
    parameters r·(in·kernel + Σ out) for all of them, where SVDs of their own have L·r·in·kernel + r·Σ out. The fit is
    the truncated SVD of all weights below each other (see `shared_rows`), whitened by the mean of their inputs' moments
    where these are known; then each V_l is least squares for its own layer's outputs. All ranks are slices of one
    decomposition. A layer by itself is the plain SVD, up to a ridge. The layers of a pool have one shape; where they
    have not, it does not apply, nor to grouped convolutions.
    """

    any_geometry = True
    shared = ("basis",)

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        kinds = {(each.shape, each.dtype, each.groups, each.one_hot) for each in layer.members}
        if len(kinds) > 1 or layer.groups > 1:
            return ()
        return (
            Axis("rank", 1, min(math.prod(layer.shape[1:]), layer.out_features * len(layer.members)), (by_output,)),
        )

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.mixing = self.factor(layer.out_features, rank)
        self.basis = self.factor(rank, *layer.shape[1:])

    @classmethod
    @torch.no_grad()
    def fit_pool(cls, forms: Sequence[Self], weights: Sequence[Tensor], bases: Sequence[Bases]) -> None:
        n, rank = weights[0][0].numel(), len(forms[0].basis)
        moments = [each.moment for each in bases if each.moment is not None]

        def solved() -> Tensor:
            if len(moments) < len(bases):
                P = shared_rows(weights, [torch.ones(n).to(weights[0])] * len(weights))
                return torch.cat([P, *(_plain_fits(weight, P) for weight in weights)])
            P = shared_rows(weights, moments)
            return torch.cat([P, *map(outer_fits, weights, [P] * len(weights), moments)])

        P, *fits = torch.split(pool_memo(bases, weights, "shared-basis", solved), [n, *_rows(weights, n)])
        forms[0].basis.copy_(P[:, :rank].T.reshape(forms[0].basis.shape))
        for form, each in zip(forms, fits, strict=True):
            form.mixing.copy_(outer_fit(each, rank))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.mixing.copy_(matrix @ self.mixing)
        return True

    @torch.no_grad()
    def scale_outputs(self, scales: Tensor) -> bool:
        self.mixing.copy_(scales[:, None] * self.mixing)
        return True

    def dense(self) -> Tensor:
        return (self.mixing @ self.basis.flatten(1)).view(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.mix(self.layer.operate(x, self.basis), self.mixing, self.bias)

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.mixing) @ self.basis.flatten(1)

    def frames(self) -> Iterable[Tensor]:
        """The basis, once for the pool."""
        return () if self.layer.place else (self.basis.flatten(1).T,)


def _plain_fits(weight: Float[Tensor, "out ..."], P: Float[Tensor, "n k"]) -> Float[Tensor, "k+out k"]:
    """What `outer_fits` gives where all inputs are as likely: exact, as the columns of P are orthonormal."""
    return torch.cat([torch.eye(P.shape[1]).to(P), weight.flatten(1).to(P) @ P])


def _rows(weights: Sequence[Tensor], n: int) -> list[int]:
    """How many rows `outer_fits` gives for each of them."""
    k = min(n, sum(map(len, weights)))
    return [k + len(weight) for weight in weights]
