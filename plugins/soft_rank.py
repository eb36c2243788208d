"""A rank that training learns: two factors whose components are under a soft threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Layer

from .svd import ChannelSVD
from .thresholds import START, folds_axis, move_, new_threshold, soft


class SoftRank(ChannelSVD):
    """W = Σᵣ S(mᵣ)·uᵣ·vᵣᵀ with S the soft threshold g(s)·maxᵣ mᵣ, one s for the layer (see `thresholds`).

    The form in which Kusupati et al. (2020, arXiv:2002.03231) learn ranks is W₁·diag(S(m))·W₂. There gains and the
    norms of columns are exchangeable, and a threshold means nothing. So a gain m is the norm of its component, the
    columns u and v have norm one, and the factors hold m·u·vᵀ: `left` has the u, `right` the rest. Gains are in units
    of the largest, at which a trained layer has its singular values; one component stays at least.

    s is stored, too, so that what is rounded is what was trained; components under the threshold are dropped.
    """

    trained_sparse = True
    trained_rank = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return () if layer.groups > 1 else (*super().axes(layer), folds_axis())

    def __init__(self, layer: Layer, *, rank: int, folds: float) -> None:
        super().__init__(layer, rank=rank)
        self.values = {"rank": rank, "folds": folds}
        self.s = new_threshold()

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.s.fill_(START)

    def _passed(self) -> Float[Tensor, " r"]:
        """What the threshold leaves of each component, as a share of it."""
        left, right = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (self.left, self.right))
        gains: Tensor = torch.linalg.vector_norm(left, dim=0) * torch.linalg.vector_norm(right.flatten(1), dim=1)
        return (soft(gains, self.s) / gains.clamp_min(torch.finfo(gains.dtype).tiny)).to(self.right.dtype)

    def _gated(self) -> Float[Tensor, "r ..."]:
        return self.right * self._passed().view(-1, *[1] * (self.right.dim() - 1))

    def dense(self) -> Tensor:
        return (self.left @ self._gated().flatten(1)).view(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.mix(self.layer.operate(x, self._gated()), self.left, self.bias)

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.left) @ self._gated().flatten(1)

    def apart(self) -> Iterable[nn.Parameter]:
        return (self.s,)

    def after_step(self, share: float) -> None:
        move_(self.s, self.values["folds"], share)

    @torch.no_grad()
    def kept(self) -> Mapping[str, Tensor]:
        return {"rank": self._passed() > 0}
