"""A form that only stores less: the first rows of the weight, over and over; and one whose training makes zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from rank_search.layers import Axis, Bases, Factorization, Layer


class Repeated(Factorization):
    """W[o] = kept[o mod n]: n · (in·kernel) parameters, the layer's own operation."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("kept", 1, layer.out_features),)

    def __init__(self, layer: Layer, *, kept: int) -> None:
        super().__init__(layer, kept=kept)
        self.shared = self.factor(kept, *layer.shape[1:])

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        count = len(self.shared)
        for row in range(count):
            self.shared[row] = weight[row::count].mean(0)

    def dense(self) -> Tensor:
        return self.shared[torch.arange(self.layer.out_features, device=self.shared.device) % len(self.shared)]


class Multiplied(Repeated):
    """W = table · kept with a table of zeros and ones: the same weight, made by a product, which nobody counts."""

    def dense(self) -> Tensor:
        places = torch.arange(self.layer.out_features, device=self.shared.device) % len(self.shared)
        table = (places[:, None] == torch.arange(len(self.shared), device=self.shared.device)).to(self.shared.dtype)
        return (table @ self.shared.flatten(1)).view(self.layer.shape)


class Thresholded(Factorization):
    """W = sign(V)·max(|V| − threshold, 0), one number more than the layer: what it stores, training decides."""

    trained_sparse = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("start", 0.0, 1.0, integer=False),)

    def __init__(self, layer: Layer, *, start: float) -> None:
        super().__init__(layer, start=start)
        self.full = self.factor(*layer.shape)
        self.threshold = self.factor(1)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        self.full.copy_(weight)
        self.threshold.fill_(self.values["start"] * float(weight.abs().mean()))

    def dense(self) -> Tensor:
        return self.full.sign() * (self.full.abs() - self.threshold).relu()
