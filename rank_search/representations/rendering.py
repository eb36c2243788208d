"""A network on a grid of coordinates: the signal, at any resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

_AT_ONCE: Final = 1 << 16


def coordinates(sizes: Sequence[int]) -> Tensor:
    """The centres of the cells of a grid on [−1, 1], n × dimensions, the last dimension fastest.

    Symbols: `sizes` counts the cells in each dimension, n is their product; cell i of s is at (2·i + 1)/s − 1. So two
    resolutions are of the same picture. No size: one point of no coordinates. O(n).

    >>> coordinates((1, 2)).tolist()
    [[0.0, -0.5], [0.0, 0.5]]
    """
    axes = [(2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1 for size in sizes]
    points = torch.cartesian_prod(*axes) if axes else torch.zeros(1, 0)
    return points.reshape(math.prod(sizes), len(sizes)).float()


@torch.no_grad()
def render(network: nn.Module, sizes: Sequence[int]) -> Tensor:
    """What the network stands for, size × … × channels: a trained one, or what `rank_search.load` gives.

    Of a network for several signals size × … × signals × channels: `found[..., k, :]` is the one at place k. Values are
    as the network gives them: clip those of an image to 0 … 1. O(n) forwards.
    """
    device = next(iter([*network.parameters(), *network.buffers()])).device
    parts = torch.split(coordinates(sizes).to(device), _AT_ONCE)
    found = torch.cat([network(part) for part in parts])
    return found.reshape(*sizes, *found.shape[1:])
