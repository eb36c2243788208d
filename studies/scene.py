"""The task of studies/scene.toml: spheres on a floor, drawn by this file, as a small neural radiance field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

import rank_search as rs

CACHE: Final = Path(__file__).parent / "cache"

LIGHT: Final = torch.tensor([1.5, -1.0, 3.0])
"""Where light comes from; surfaces that see none of it are lit by the sky alone."""

AMBIENT: Final = 0.35
"""The share of light that comes from everywhere."""

_OFF: Final = 1e-4
"""How far from a surface its shadow's ray begins."""


@dataclass(frozen=True)
class Sphere:
    """Matt, but for a highlight."""

    centre: tuple[float, float, float]
    radius: float
    colour: tuple[float, float, float]

    def hit(self, begins: Tensor, directions: Tensor) -> Tensor:
        """How far each ray goes until it meets the sphere from outside; infinity: never."""
        apart = begins - torch.tensor(self.centre)
        along = (apart * directions).sum(-1)
        inside = along.square() - apart.square().sum(-1) + self.radius**2
        distance = -along - inside.clamp(min=0).sqrt()
        return torch.where((inside > 0) & (distance > 0), distance, math.inf)

    def normals(self, places: Tensor) -> Tensor:
        return (places - torch.tensor(self.centre)) / self.radius

    def colours(self, places: Tensor) -> Tensor:
        return torch.tensor(self.colour).expand_as(places)


@dataclass(frozen=True)
class Floor:
    """A level plane, cut to a disc, of squares in two colours."""

    height: float
    radius: float
    square: float
    colour: tuple[float, float, float]
    other: tuple[float, float, float]

    def hit(self, begins: Tensor, directions: Tensor) -> Tensor:
        """As of a sphere; from above and from below."""
        distance = (self.height - begins[..., 2]) / directions[..., 2]
        places = begins + distance[..., None] * directions
        return torch.where((distance > 0) & (places[..., :2].norm(dim=-1) < self.radius), distance, math.inf)

    def normals(self, places: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0]).expand_as(places)

    def colours(self, places: Tensor) -> Tensor:
        odd = (places[..., :2] / self.square).floor().sum(-1, keepdim=True) % 2 > 0
        return torch.where(odd, torch.tensor(self.colour), torch.tensor(self.other))


THINGS: Final[tuple[Sphere | Floor, ...]] = (
    Floor(-0.4, 0.88, 0.44, (0.85, 0.82, 0.75), (0.45, 0.5, 0.6)),
    Sphere((0.0, 0.05, -0.02), 0.38, (0.85, 0.25, 0.2)),
    Sphere((0.5, -0.3, -0.2), 0.2, (0.2, 0.65, 0.3)),
    Sphere((-0.5, -0.25, -0.15), 0.25, (0.25, 0.4, 0.85)),
    Sphere((-0.1, -0.6, -0.27), 0.13, (0.95, 0.8, 0.2)),
)
"""All of it within the unit sphere."""


def colours(begins: Tensor, directions: Tensor) -> Tensor:
    """What each ray meets first, in the light or in the shade; white where it meets nothing."""
    distances = torch.stack([thing.hit(begins, directions) for thing in THINGS])
    nearest, which = distances.min(0)
    seen = torch.ones_like(begins)
    for place, thing in enumerate(THINGS):
        here = (which == place) & nearest.isfinite()
        seen[here] = shaded(thing, begins[here] + nearest[here][:, None] * directions[here], directions[here])
    return seen


def shaded(thing: Sphere | Floor, places: Tensor, directions: Tensor) -> Tensor:
    """Lambert's law, with a sky that lights from everywhere, a shadow of what is in the light, and a highlight."""
    normals, light = thing.normals(places), torch.nn.functional.normalize(LIGHT - places, dim=-1)
    facing = (normals * light).sum(-1, keepdim=True).clamp(min=0)
    hidden = torch.stack([other.hit(places + _OFF * normals, light) for other in THINGS]).isfinite().any(0)[:, None]
    lit = torch.where(hidden, 0.0, facing)
    halfway = torch.nn.functional.normalize(light - directions, dim=-1)
    highlight = (normals * halfway).sum(-1, keepdim=True).clamp(min=0) ** 30 * torch.where(hidden, 0.0, 0.25)
    shine = highlight if isinstance(thing, Sphere) else 0.0
    return (thing.colours(places) * (AMBIENT + (1 - AMBIENT) * lit) + shine).clamp(0, 1)


def around(count: int, first: float, distance: float = 2.6) -> Tensor:
    """Poses of cameras above the floor that look at the middle: at golden angles around, 12° to 65° up, all evenly."""
    turns = first + torch.arange(count) * math.pi * (3 - math.sqrt(5))
    low, high = math.sin(math.radians(12)), math.sin(math.radians(65))
    heights = low + (high - low) * (torch.arange(count) + 0.5) / count
    level = (1 - heights.square()).sqrt()
    return rs.representations.looking_at(
        distance * torch.stack([level * turns.cos(), level * turns.sin(), heights], dim=-1)
    )


def views(count: int, first: float, size: int = 64, finer: int = 3) -> rs.representations.Views:
    """Pictures of `size` × `size` pixels, each the mean of `finer` × `finer` rays."""
    poses, focal = around(count, first), 1.4 * size
    along = rs.representations.rays(poses, focal * finer, (size * finer, size * finer))
    fine = colours(along[..., :3], along[..., 3:])
    images = fine.reshape(count, size, finer, size, finer, 3).mean((2, 4))
    return rs.representations.Views(images, poses, focal)


def task(
    size: int = 64,
    count: int = 32,
    held_out: int = 8,
    width: int = 64,
    depth: int = 4,
    octaves: int = 5,
    samples: int = 32,
    steps: int = 3000,
) -> rs.representations.Scene:
    """What the study file's factory returns: a radiance field, trained once (minutes), then kept.

    Args:
        size: pixels of a side of each view.
        count: of the views to train on.
        held_out: views to select by, and as many others for the report.
        width, depth, octaves: of the network.
        samples: points on each ray.
        steps: of its training, each on 512 random rays.
    """
    training, selection, test = views(count, 0.0, size), views(held_out, 1.0, size), views(held_out, 2.0, size)
    kept = f"scene-{size}-{count}-{width}x{depth}-{octaves}-{samples}-{steps}.safetensors"
    network = rs.representations.trained_scene(
        lambda: rs.representations.radiance_field(octaves, width=width, depth=depth),
        training,
        CACHE / kept,
        steps=steps,
        samples=samples,
    )
    return rs.representations.Scene(network, training, selection, test, samples)
