"""Networks from coordinates to values, none of which keeps more than its weights.

SIREN: Sitzmann, Martel, Bergman, Lindell, Wetzstein, "Implicit Neural Representations with Periodic Activation
Functions" (2020). Fourier features: the positional encoding of Mildenhall et al., "NeRF" (2020). Grids: dense ones at
several resolutions, after Müller, Evans, Schied, Keller, "Instant Neural Graphics Primitives" (2022), without hashing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCY: Final = 30.0
"""Of sines, as in the paper."""


@final
class Sine(nn.Module):
    """sin(ω·x)."""

    def __init__(self, frequency: float = FREQUENCY) -> None:
        super().__init__()
        self.frequency = frequency

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * x)


@final
class Fourier(nn.Module):
    """The coordinates, and sines and cosines of each at octaves of half a wave on [−1, 1]."""

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.octaves = octaves

    def forward(self, x: Tensor) -> Tensor:
        waves = [2.0**octave * math.pi * x for octave in range(self.octaves)]
        return torch.cat([x, *(torch.sin(each) for each in waves), *(torch.cos(each) for each in waves)], dim=-1)


@final
class FeatureGrid(nn.Module):
    """Features of one to three coordinates, between the corners of dense grids of several resolutions.

    Attributes:
        tables: of each resolution, 1 × features × size × … × size.
    """

    def __init__(self, inputs: int, sizes: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.inputs = inputs
        shapes = [(size,) * inputs if inputs > 1 else (1, size) for size in sizes]
        self.tables = nn.ParameterList([nn.Parameter(0.1 * torch.randn(1, features, *shape)) for shape in shapes])

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(-1) if self.inputs > 1 else F.pad(x, (0, 1))  # sampling takes the last dimension of a table first
        at = x.reshape(1, -1, *[1] * (max(2, self.inputs) - 1), max(2, self.inputs))
        found = [F.grid_sample(table, at, align_corners=True, padding_mode="border") for table in self.tables]
        return torch.cat([each.flatten(2)[0].T for each in found], dim=-1)


@final
class Several(nn.Module):
    """Networks of one structure side by side, for as many signals: n × dimensions to n × networks × channels.

    Attributes:
        networks: in the order of the signals.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks], dim=-2)


def several(network: nn.Module, count: int) -> Several:
    """So many copies of a network, one for each signal: equal until they are trained.

    Layers of the copies that are tied (`tie = [["networks.*.{layer}"]]` in `[layers]`) may share factors.

    >>> several(siren(2, 3), 4)(torch.zeros(5, 2)).shape
    torch.Size([5, 4, 3])
    """
    return Several(copy.deepcopy(network) for _ in range(count))


def siren(inputs: int, outputs: int, width: int = 48, depth: int = 4, frequency: float = FREQUENCY) -> nn.Sequential:
    """Linear layers with sines between them: `depth` of them, and one to the outputs.

    Weights are drawn by torch's global generator, uniform within ±1/inputs in the first layer and ±√(6/width)/ω in the
    others, as in the paper; ω is the frequency. At full scale this learns pictures within a few hundred steps.

    >>> sum(each.numel() for each in siren(2, 3).parameters())
    7347
    """
    layers: list[nn.Module] = []
    for place in range(depth):
        own = inputs if place == 0 else width
        layers += [_within(nn.Linear(own, width), 1 / own if place == 0 else math.sqrt(6 / own) / frequency)]
        layers += [Sine(frequency)]
    last = _within(nn.Linear(width, outputs), math.sqrt(6 / width) / frequency)
    return nn.Sequential(*layers, last)


def fourier(inputs: int, outputs: int, octaves: int = 6, width: int = 48, depth: int = 3) -> nn.Sequential:
    """Fourier features, then linear layers with ReLU.

    >>> fourier(2, 3)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """
    return nn.Sequential(Fourier(octaves), *_decoder(inputs * (1 + 2 * octaves), outputs, width, depth))


def grid(
    inputs: int,
    outputs: int,
    sizes: tuple[int, ...] = (4, 8, 16, 32),
    features: int = 2,
    width: int = 16,
    depth: int = 1,
) -> nn.Sequential:
    """Grids of several resolutions, then a small decoder: linear layers with ReLU.

    >>> grid(2, 3)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """
    return nn.Sequential(FeatureGrid(inputs, sizes, features), *_decoder(features * len(sizes), outputs, width, depth))


def _decoder(inputs: int, outputs: int, width: int, depth: int) -> list[nn.Module]:
    sizes = [inputs, *[width] * depth]
    hidden = [(nn.Linear(own, after), nn.ReLU()) for own, after in pairwise(sizes)]
    return [*(each for pair in hidden for each in pair), nn.Linear(sizes[-1], outputs)]


@torch.no_grad()
def _within(layer: nn.Linear, bound: float) -> nn.Linear:
    layer.weight.uniform_(-bound, bound)
    return layer
