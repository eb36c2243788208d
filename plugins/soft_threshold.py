"""A sparse weight: the layer's own, under a soft threshold that training learns."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rank_search.layers import Axis, Bases, Factorization, Layer

from .thresholds import START, folds_axis, move_, new_threshold, soft


class SoftThreshold(Factorization):
    """W = sign(V)·max(0, |V| − g(s)·max|V|), one s for the layer (see `thresholds`).

    Kusupati et al. (2020, arXiv:2002.03231), where the threshold is g(s) itself. In units of the largest weight it
    means the same for layers of any scale, and cannot take all of them. Parameters and MACs are the layer's: what it
    saves are bits and nonzeros. s is stored, too, so that what is rounded is what was trained. Folded, V is zero where
    W is.
    """

    any_geometry = True
    trained_sparse = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (folds_axis(),)

    def __init__(self, layer: Layer, *, folds: float) -> None:
        super().__init__(layer, folds=folds)
        self.full = self.factor(*layer.shape)
        self.s = new_threshold()

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        self.full.copy_(weight)
        self.s.fill_(START)

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.full.copy_((matrix @ self.full.flatten(1)).view_as(self.full))
        return True

    @torch.no_grad()
    def scale_outputs(self, scales: Tensor) -> bool:
        self.full.copy_((scales[:, None] * self.full.flatten(1)).view_as(self.full))
        return True

    def dense(self) -> Tensor:
        return soft(self.full, self.s)

    def apart(self) -> Iterable[nn.Parameter]:
        return (self.s,)

    def after_step(self, share: float) -> None:
        move_(self.s, self.values["folds"], share)

    @torch.no_grad()
    def fold(self) -> None:
        self.full.mul_(self.dense() != 0)
