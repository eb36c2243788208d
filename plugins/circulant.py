"""Circulant blocks: channels in groups, within which a shift of the inputs is a shift of the outputs."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, cholesky, fit_closer

from .cores import ridged
from .symmetric import gap

SOLVED = 4096  # unknowns in a row up to which they are solved for


def closest_to_outputs(
    weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"], order: int
) -> Float[Tensor, "rows inputs ..."]:
    """The first row of each row of blocks of the circulant weight that is closest in the outputs.

    The p-th row of a block is v·R_p, R_p the shift by p. So v = Σ_p w_p·C·R_p⁻¹·(Σ_p R_p·C·R_p⁻¹)⁻¹, with the same
    inverse for all rows of blocks. O(n³ + order·n²).
    """
    C, W = ridged(moment), weight.flatten(1).to(torch.float64)
    n = len(C)
    wanted = averaged((W @ C).view(weight.shape), order).flatten(1)
    places = C.view(weight.shape[1] // order, order, n // weight.shape[1], -1, order, n // weight.shape[1])
    shifted = torch.stack([places.roll((-p, -p), (1, 4)) for p in range(order)]).mean(0)
    return torch.cholesky_solve(wanted.T, cholesky(shifted.reshape(n, n))).T.view(-1, *weight.shape[1:])


def averaged(weight: Float[Tensor, "out inputs ..."], order: int) -> Float[Tensor, "rows inputs ..."]:
    """The first row of each row of blocks: the mean of its rows, each shifted back by its place.

    >>> averaged(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), 2).tolist()
    [[2.0, 3.0]]
    """
    rows = torch.unflatten(torch.unflatten(weight, 1, (-1, order)), 0, (-1, order))  # out/order, p, in/order, q, …
    return torch.stack([rows[:, p].roll(-p, 2) for p in range(order)]).mean(0).flatten(1, 2)


class Circulant(Factorization, ABC):
    """W[(O, p), (I, q), s] = V[O, (I, q − p mod b), s]: blocks of b × b channels that are circulant matrices.

    A fixed symmetry, W = U·v with U the cyclic shifts of b channels (Zhou, Knowles, Finn, "Meta-learning symmetries by
    reparameterization", ICLR 2021); a layer that is trained so is that of CirCNN (Ding et al., MICRO 2017). Parameters
    out·in·kernel/b, and the layer's own operation with its MACs. Fitted to the weight, V is the mean of the rows of a
    block, shifted back, the projection of Reynolds; fitted to the outputs, least squares, exactly. Channels of a
    trained network have no order that shifts know of: untrained it loses what chance loses, √(1 − 1/b) of the norm.

    There is nothing to choose: the axis has one value, b. For linear layers and convolutions without groups, of
    inputs and outputs that b divides.

    Attributes:
        order: b.
    """

    any_geometry = True
    order: ClassVar[int]

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        is_cut = layer.out_features % cls.order == layer.in_features % cls.order == 0
        if layer.groups > 1 or layer.one_hot or not is_cut:
            return ()
        return (Axis("order", cls.order, cls.order),)

    def __init__(self, layer: Layer, *, order: int) -> None:
        super().__init__(layer, order=order)
        self.first = self.factor(layer.out_features // self.order, *layer.shape[1:])

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, lambda weight, bases: self._fit_weight(weight), self._fit_outputs)

    def _fit_weight(self, weight: Tensor) -> None:
        self.first.copy_(averaged(weight.to(torch.float64), self.order))

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        if len(moment) <= SOLVED:
            self.first.copy_(closest_to_outputs(weight, moment, self.order))

    def dense(self) -> Tensor:
        blocks = torch.unflatten(self.first, 1, (-1, self.order))
        return torch.stack([blocks.roll(p, 2) for p in range(self.order)], 1).reshape(self.layer.shape)

    @classmethod
    def figures(cls, layer: Layer, weight: Tensor) -> Mapping[str, float]:
        """How far the weight is from circulant blocks."""
        form = cls(replace(layer, dtype=torch.float64), order=cls.order).to(weight.device)
        with torch.no_grad():
            form._fit_weight(weight)
        return {"equivariance_gap": gap(weight, form.dense())}


@final
class PairsOfChannels(Circulant):
    """In blocks of two."""

    order = 2


@final
class FoursOfChannels(Circulant):
    """In blocks of four."""

    order = 4


@final
class EightsOfChannels(Circulant):
    """In blocks of eight."""

    order = 8
