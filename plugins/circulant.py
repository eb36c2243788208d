"""Circulant blocks: channels in groups, within which a shift of the inputs is a shift of the outputs."""

from __future__ import annotations

from abc import ABC
from typing import Final, final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Layer, cholesky

from .cores import ridged
from .fixed_group import FixedGroup

SOLVED: Final = 4096  # unknowns in a row up to which they are solved for


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


class Circulant(FixedGroup, ABC):
    """W[(O, p), (I, q), s] = V[O, (I, q − p mod b), s]: blocks of b × b channels that are circulant matrices.

    The group is the cyclic shifts of b channels, b its order; a layer that is trained so is that of CirCNN (Ding et
    al., MICRO 2017). Parameters out·in·kernel/b, and the layer's own operation with its MACs. Fitted to the weight, V
    is the mean of the rows of a block, shifted back; fitted to the outputs, least squares, exactly. Channels of a
    trained network have no order that shifts know of: untrained it loses what chance loses, √(1 − 1/b) of the norm.

    For linear layers and convolutions without groups, of inputs and outputs that b divides.
    """

    @classmethod
    def acts_on(cls, layer: Layer) -> bool:
        is_cut = layer.out_features % cls.order == layer.in_features % cls.order == 0
        return is_cut and layer.groups == 1 and not layer.one_hot

    def __init__(self, layer: Layer, *, order: int) -> None:
        super().__init__(layer, order=order)
        self.first = self.factor(layer.out_features // self.order, *layer.shape[1:])

    def project(self, weight: Tensor) -> None:
        self.first.copy_(averaged(weight.to(torch.float64), self.order))

    def solve(self, weight: Tensor, moment: Tensor) -> None:
        if len(moment) <= SOLVED:
            self.first.copy_(closest_to_outputs(weight, moment, self.order))

    def dense(self) -> Tensor:
        blocks = torch.unflatten(self.first, 1, (-1, self.order))
        return torch.stack([blocks.roll(p, 2) for p in range(self.order)], 1).reshape(self.layer.shape)


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
