"""Symmetric kernels: places of a kernel that a group of flips and turns leads to each other share their weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rank_search.basics import Float, Int
from rank_search.layers import Layer, cholesky

from .cores import ridged
from .filter_basis import filter_and_mix, mix_and_filter
from .fixed_group import FixedGroup

Places = NDArray[np.int64]
"""Of each place of a kernel a number."""


def closest_to_outputs(
    weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"], masks: Float[Tensor, "orbits places"]
) -> Float[Tensor, "out inputs orbits"]:
    """V, the numbers that orbits share, of the symmetric weight that is closest in the outputs.

    With P the orbits' sums of a patch's places (n × in·orbits), V = W·C·P·(Pᵀ·C·P)⁻¹. O(n²·(out + orbits) +
    (in·orbits)³).
    """
    C, W, M = ridged(moment), weight.flatten(1).to(torch.float64), masks.to(torch.float64)
    inputs, places = weight.shape[1], M.shape[1]
    seen = (C.view(-1, inputs, places) @ M.T).flatten(1)  # C·P
    both = torch.einsum("isk,as->iak", seen.view(inputs, places, -1), M).flatten(0, 1)
    return torch.cholesky_solve((W @ seen).T, cholesky(both)).T.reshape(len(W), inputs, -1)


class Symmetric(FixedGroup, ABC):
    """W[o, i, s] = V[o, i, orbit of s]: kernels that flips or turns of a group leave as they are.

    Parameters out·in·orbits for out·in·places. With channels left as they are, such a layer commutes with the group on
    its maps. It is also a basis of fixed filters, the sums over orbits: a depthwise convolution with these and a 1×1
    convolution of in·orbits channels, or the reverse, where that takes fewer MACs than the layer. Fitted to the weight,
    V is the mean of each orbit; fitted to the outputs, least squares, exactly.

    For convolutions with and without groups, of any dimension, of whose kernel the group moves a place.
    """

    @classmethod
    @abstractmethod
    def moved(cls, places: Places) -> Sequence[Places]:
        """The kernel under each element of the group; nothing where that does not act on kernels of such a shape."""

    @classmethod
    def acts_on(cls, layer: Layer) -> bool:
        return len(layer.shape) > 2 and max(cls._orbits(layer)) + 1 < math.prod(layer.kernel)

    def __init__(self, layer: Layer, *, order: int) -> None:
        super().__init__(layer, order=order)
        self.orbit_of = self._orbits(layer)
        self.entries = self.factor(*layer.shape[:2], max(self.orbit_of) + 1)

    @classmethod
    def _orbits(cls, layer: Layer) -> tuple[int, ...]:
        """The orbit of each place of the kernel."""
        places = np.arange(math.prod(layer.kernel)).reshape(layer.kernel)
        least = np.minimum.reduce([places, *cls.moved(places)])
        return tuple(map(int, np.unique(least, return_inverse=True)[1].flat))

    def project(self, weight: Tensor) -> None:
        masks = self._masks().to(torch.float64)
        self.entries.copy_(weight.flatten(2).to(torch.float64) @ (masks / masks.sum(1, keepdim=True)).T)

    def solve(self, weight: Tensor, moment: Tensor) -> None:
        masks, groups = self._masks(), self.layer.groups
        blocks = zip(weight.chunk(groups), moment.view(groups, *moment.shape[-2:]), strict=True)
        self.entries.copy_(torch.cat([closest_to_outputs(block, own, masks) for block, own in blocks]))

    def _where(self) -> Int[Tensor, " places"]:
        return torch.tensor(self.orbit_of, device=self.entries.device)

    def _masks(self) -> Float[Tensor, "orbits places"]:
        return F.one_hot(self._where(), self.entries.shape[2]).T.to(self.entries)

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.entries.copy_((matrix @ self.entries.flatten(1)).reshape(self.entries.shape))
        return True

    def dense(self) -> Tensor:
        return self.entries.index_select(2, self._where()).reshape(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        whole, filters_first, mixes_first = macs_of_orders(self.layer, self.entries.shape[2])
        if whole <= min(filters_first, mixes_first):
            return super().forward(x)
        filters = self._masks().reshape(-1, 1, *self.layer.kernel)
        in_order = filter_and_mix if filters_first < mixes_first else mix_and_filter
        return in_order(self.layer, x, filters, self.entries, self.bias)


def macs_of_orders(layer: Layer, orbits: int) -> tuple[int, int, int]:
    """MACs of the layer, of filters and then the mixing, and of the mixing and then filters.

    Counted for each position of the smaller map, inputs and outputs being a stride apart: the filters run there.

    >>> macs_of_orders(Layer("", "conv2d", (8, 4, 3, 3)), orbits=3)
    (288, 204, 312)
    """
    steps, is_transposed, places = math.prod(layer.stride), bool(layer.output_padding), math.prod(layer.kernel)
    of_inputs, of_outputs = (1, steps) if is_transposed else (steps, 1)
    pairs = layer.shape[0] * layer.shape[1]
    filters_first = orbits * (layer.in_features * places + of_outputs * pairs)
    return pairs * places, filters_first, orbits * (of_inputs * pairs + layer.out_features * places)


@final
class Mirrored(Symmetric):
    """Left and right are the same: the last dimension of the kernel, which may be the only one."""

    order = 2

    @classmethod
    def moved(cls, places: Places) -> Sequence[Places]:
        return (np.flip(places, -1),)


@final
class UpsideDown(Symmetric):
    """Top and bottom are the same: the last dimension but one."""

    order = 2

    @classmethod
    def moved(cls, places: Places) -> Sequence[Places]:
        return (np.flip(places, -2),) if places.ndim > 1 else ()


@final
class HalfTurned(Symmetric):
    """The same after half a turn, in the last two dimensions."""

    order = 2

    @classmethod
    def moved(cls, places: Places) -> Sequence[Places]:
        return (np.rot90(places, 2, (-2, -1)),) if places.ndim > 1 else ()


@final
class Flipped(Symmetric):
    """Left and right, and top and bottom."""

    order = 4

    @classmethod
    def moved(cls, places: Places) -> Sequence[Places]:
        return tuple(np.flip(places, axes) for axes in (-1, -2, (-2, -1))) if places.ndim > 1 else ()


@final
class QuarterTurned(Symmetric):
    """The same after a quarter of a turn, where the kernel's last two dimensions are equal."""

    order = 4

    @classmethod
    def moved(cls, places: Places) -> Sequence[Places]:
        is_square = places.ndim > 1 and places.shape[-1] == places.shape[-2]
        return tuple(np.rot90(places, turns, (-2, -1)) for turns in (1, 2, 3)) if is_square else ()
