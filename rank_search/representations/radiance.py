"""A radiance field: a network from points and directions to colours and densities, and pictures of it.

Mildenhall, Srinivasan, Tancik, Barron, Ramamoorthi, Ng, "NeRF: Representing Scenes as Neural Radiance Fields for View
Synthesis" (2020): positional encoding and volume rendering, with one network instead of a coarse and a fine one. All
there is to see lies within the unit sphere around the origin; beyond it is nothing but the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.representations.networks import Fourier
from rank_search.representations.views import rays

SAMPLES: Final = 32
"""Of the field along a ray."""

WHITE: Final = 1.0
"""What is seen where nothing is in the way."""

_DENSE: Final = 10.0
"""Density of a network's output of one: a hundred hides what is a tenth of the unit sphere's radius behind."""

_RAYS_AT_ONCE: Final = 1 << 12


@final
class RadianceField(nn.Module):
    """Points and unit directions, n × 6, to red, green and blue, each 0 to 1, and a density, n × 4.

    Attributes:
        trunk: of the encoded point, to what density and colours are made of.
        density: one number of it, made positive.
        colours: of it and of the encoded direction.
    """

    def __init__(self, octaves: int, turns: int, width: int, depth: int) -> None:
        super().__init__()
        self.at, self.towards = Fourier(octaves), Fourier(turns)
        inputs, layers = 3 * (1 + 2 * octaves), list[nn.Module]()
        for place in range(depth):
            layers += [nn.Linear(width if place else inputs, width), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.density = nn.Linear(width, 1)
        half = width // 2
        self.colours = nn.Sequential(nn.Linear(width + 3 * (1 + 2 * turns), half), nn.ReLU(), nn.Linear(half, 3))

    def forward(self, x: Tensor) -> Tensor:
        features = self.trunk(self.at(x[:, :3]))
        seen = torch.cat([features, self.towards(x[:, 3:])], dim=-1)
        return torch.cat([torch.sigmoid(self.colours(seen)), _DENSE * F.softplus(self.density(features))], dim=-1)


def radiance_field(octaves: int = 5, turns: int = 1, width: int = 64, depth: int = 4) -> RadianceField:
    """A radiance field: `depth` linear layers with ReLU for the points, then one for the density, two for the colours.

    Args:
        octaves: of waves of a point's coordinates, as of `fourier`.
        turns: the same of a direction's; colours change with the direction where something shines.

    >>> radiance_field()(torch.zeros(5, 6)).shape
    torch.Size([5, 4])
    """
    return RadianceField(octaves, turns, width, depth)


def along(some: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Points on rays within the unit sphere, a point in each of s equal steps: n·s × 6, and the length of a step, n.

    Symbols: `some`, n × 6, are rays as of `rays`; `offsets`, n × s or 1 × s, say where in its step a point is: 0 to 1.
    Random ones are the stratified samples of NeRF (section 4), ½ is the middle. The direction is kept beside each
    point. A ray that misses the sphere, or has left it behind, has steps of length 0. O(n·s).

    >>> points, lengths = along(torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0, -1.0]]), torch.full((1, 2), 0.5))
    >>> points[:, 2].tolist(), lengths.tolist()
    ([0.5, -0.5], [1.0])
    """
    begins, directions = some[:, :3], some[:, 3:]
    middle = -(begins * directions).sum(-1)
    half = (middle.square() - begins.square().sum(-1) + 1).clamp(min=0).sqrt()
    near = (middle - half).clamp(min=0)
    lengths = ((middle + half).clamp(min=0) - near) / offsets.shape[-1]
    steps = torch.arange(offsets.shape[-1], device=some.device) + offsets
    points = begins[:, None] + (near[:, None] + lengths[:, None] * steps)[..., None] * directions[:, None]
    return torch.cat([points, directions[:, None].expand_as(points)], dim=-1).flatten(0, 1), lengths


def ray_weights(densities: Tensor, lengths: Tensor) -> Tensor:
    """What share of a ray's colour each of its points has: n × s.

    Symbols: `densities`, n × s, and `lengths` of a step, n: σ and δ in wᵢ = exp(−δ·Σ_{j<i} σⱼ)·(1 − exp(−δ·σᵢ)), NeRF's
    equation 3. Their sum is 1 − exp(−δ·Σ σ), at most one; the rest is the background's. O(n·s).

    >>> ray_weights(torch.tensor([[0.0, 1e9, 1.0]]), torch.ones(1)).tolist()
    [[0.0, 1.0, 0.0]]
    """
    hidden = densities * lengths[:, None]
    before = hidden.cumsum(-1) - hidden
    return torch.exp(-before) * -torch.expm1(-hidden)


def seen_along(network: nn.Module, points: Tensor, lengths: Tensor, background: float = WHITE) -> Tensor:
    """The colours at the end of rays, n × 3, from points on them as `along` gives them. A forward of n·s points."""
    values: Tensor = network(points).unflatten(0, (len(lengths), -1))
    weights = ray_weights(values[..., 3], lengths)
    colours = (weights[..., None] * values[..., :3]).sum(-2)
    return colours + background * (1 - weights.sum(-1, keepdim=True))


@torch.no_grad()
def render_views(
    network: nn.Module,
    poses: Tensor,
    focal: float,
    sizes: Sequence[int],
    samples: int = SAMPLES,
    background: float = WHITE,
) -> Tensor:
    """Pictures of a radiance field: views × height × width × 3, of a trained one, or of what `rank_search.load` gives.

    Symbols: `poses`, views × 4 × 4, `focal` and `sizes` as in `Views`; any of them, whatever the network was trained
    on. Points are the middles of `samples` steps along each ray. O(pixels · samples) forwards.
    """
    device = next(iter([*network.parameters(), *network.buffers()])).device
    every = rays(poses, focal, sizes)
    middles = torch.full((1, samples), 0.5)
    parts = [along(each, middles) for each in torch.split(every.flatten(0, 2), _RAYS_AT_ONCE)]
    found = [seen_along(network, points.to(device), lengths.to(device), background) for points, lengths in parts]
    return torch.cat(found).reshape(*every.shape[:3], 3)
