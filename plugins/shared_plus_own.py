"""One weight for all layers of a pool, and a difference of low rank that is each layer's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Self, final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, DirectBases, Layer, PooledFactorization, pool_memo, times

RIDGE: Final = 1e-9  # of the mean diagonal entry


def common_weight(weights: Sequence[Float[Tensor, "out n"]], moments: Sequence[Tensor]) -> Float[Tensor, "out n"]:
    """The one weight that is closest to all of them, in the sum of the relative squared errors of their outputs.

    Symbols: W_l has inputs of the second moment C_l, and s_l = tr(W_l·C_l·W_lᵀ). The least of Σ tr((W_l − W)·C_l·(W_l −
    W)ᵀ)/s_l is W = (Σ W_l·C_l/s_l)·(Σ C_l/s_l)⁻¹ (least squares). To each C_l/s_l a small ridge is added, so that of
    inputs that never occur the plain mean of the weights is taken; a layer without outputs counts with s_l = 1.
    Moments may be given as diagonals. In float64, O(n²·(n + Σ out)).

    >>> common_weight([torch.tensor([[1.0]]), torch.tensor([[-1.0]])], [torch.ones(1, 1)] * 2).tolist()
    [[0.0]]
    """
    rows = [each.to(torch.float64) for each in weights]
    known = [each.to(torch.float64) for each in moments]
    sizes = [float((times(W, C) * W).sum()) or 1.0 for W, C in zip(rows, known, strict=True)]
    shares = [C / size for C, size in zip(known, sizes, strict=True)]
    ridge = RIDGE * max(float(_diagonal(each).mean()) for each in shares) or 1.0
    damped = [each + (ridge if each.dim() == 1 else ridge * torch.eye(len(each)).to(each)) for each in shares]
    seen = torch.stack([times(W, C) for W, C in zip(rows, damped, strict=True)]).sum(0)
    metric = torch.stack(damped).sum(0)
    if metric.dim() == 1:
        return seen / metric
    solved: Tensor = torch.linalg.solve(metric, seen, left=False)
    return solved


def _diagonal(C: Tensor) -> Tensor:
    return C if C.dim() == 1 else C.diagonal()


@final
class SharedPlusOwn(PooledFactorization):
    """W_l = W + A_l·B_l: W is that of all layers of the pool, A_l (out × r) and B_l (r × in·kernel) each one's own.

    Soft sharing of networks: Bird, Ballé, Singh, Chou 2021, arXiv:2104.12456. Parameters out·in·kernel + L·r·(out +
    in·kernel) for all L layers, where they have L·out·in·kernel; MACs are the layer's, as the weight is put together in
    each forward. The fit is the W closest to all (see `common_weight`), then of each difference W_l − W the truncated
    SVD, in the metric of the layer's inputs where these are known: all ranks are slices of one decomposition. The
    factors of all layers stand in two tensors, out of which each takes its own, so that a pool is coded as three. The
    layers of a pool have one shape; where they have not, it does not apply, nor to grouped convolutions, nor to a layer
    by itself, which has nothing to share.
    """

    any_geometry = True
    shared = ("common", "left", "right")

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        kinds = {(each.shape, each.dtype, each.groups, each.one_hot) for each in layer.members}
        if len(layer.members) == 1 or len(kinds) > 1 or layer.groups > 1:
            return ()
        return (Axis("rank", 1, min(layer.out_features, math.prod(layer.shape[1:]))),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        count = len(layer.members)
        self.common = self.factor(*layer.shape)
        self.left = self.factor(count, layer.out_features, rank)
        self.right = self.factor(count, rank, math.prod(layer.shape[1:]))

    @classmethod
    @torch.no_grad()
    def fit_pool(cls, forms: Sequence[Self], weights: Sequence[Tensor], bases: Sequence[Bases]) -> None:
        out, n, count = len(weights[0]), weights[0][0].numel(), len(weights)

        def solved() -> Tensor:
            known = [each.moment for each in bases if each.moment is not None]
            moments = known if len(known) == count else [torch.ones(n).to(weights[0])] * count
            W = common_weight([each.flatten(1) for each in weights], moments)
            apart = [weight.flatten(1) - W for weight in weights]
            own = [DirectBases(each, other.moment).outputs() for each, other in zip(apart, bases, strict=True)]
            return torch.cat([W.flatten(), *(torch.cat([each.left.T, each.projected], 1).flatten() for each in own)])

        W, own = torch.tensor_split(pool_memo(bases, weights, cls.__qualname__, solved), [out * n])
        first, rank = forms[0], int(forms[0].values["rank"])
        lefts, rights = torch.split(own.view(count, -1, out + n)[:, :rank], [out, n], dim=2)
        first.common.copy_(W.view(first.common.shape))
        first.left.copy_(lefts.mT)
        first.right.copy_(rights)

    def dense(self) -> Tensor:
        place = self.layer.place
        return self.common + (self.left[place] @ self.right[place]).view(self.layer.shape)
