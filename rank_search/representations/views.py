"""Pictures of a scene from known places, and the rays that their pixels look along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from rank_search.errors import TaskError

_UNIT: Final = 1e-4
"""How far the columns of a rotation may be from orthonormal."""


@final
@dataclass(frozen=True, eq=False)
class Views:
    """Pictures of one scene, and where each was taken from.

    Attributes:
        images: views × height × width × 3, from 0 to 1.
        poses: views × 4 × 4, from a camera's coordinates to the scene's. A camera looks along its −z, with x to the
            right and y up, as in the `transform_matrix` of a transforms.json.
        focal: the focal length in pixels; the optical axis goes through the middle of the picture.
    """

    images: Tensor
    poses: Tensor
    focal: float

    def __post_init__(self) -> None:
        """Refuse what cannot be a picture from a place.

        Raises:
            TaskError: shapes do not fit, values are outside of 0 to 1, a pose does not keep lengths and angles, or the
                focal length is not positive.
        """
        if self.images.dim() != 4 or self.images.shape[-1] != 3 or not self.images.numel():
            raise TaskError(
                f"The images have the shape {tuple(self.images.shape)}; they are views × height × width × 3, one view "
                "at least. Stack pictures of one size."
            )
        if not bool(((self.images >= 0) & (self.images <= 1)).all()):  # NaN is neither
            raise TaskError("The images have values outside of 0 to 1. Divide numbers of 8 bits by 255.")
        if tuple(self.poses.shape) != (len(self.images), 4, 4):
            raise TaskError(
                f"The poses have the shape {tuple(self.poses.shape)} for {len(self.images)} images; there is one of "
                "4 × 4 for each image."
            )
        turns = self.poses[:, :3, :3].double()
        apart = (turns.mT @ turns - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2))
        if wrong := (~(apart < _UNIT)).nonzero().flatten().tolist():
            raise TaskError(
                f"Pose {wrong[0]} is no camera's: its columns are not of length one at right angles. Scale the last "
                "column of a pose alone, to bring the scene into the unit sphere."
            )
        if not (0 < self.focal < math.inf):
            raise TaskError(f"The focal length is {self.focal:g} pixels; it is positive.")

    @property
    def sizes(self) -> tuple[int, int]:
        """Height and width of each picture."""
        return int(self.images.shape[1]), int(self.images.shape[2])


def rays(poses: Tensor, focal: float, sizes: Sequence[int]) -> Tensor:
    """The rays through the centres of all pixels: views × height × width × 6, where they begin and a unit direction.

    Symbols: `poses`, views × 4 × 4, `focal` and `sizes` as in `Views`. The pixel at row i, column j of h × w looks
    along ((j + ½ − w/2)/f, −(i + ½ − h/2)/f, −1), turned by the pose. O(pixels).

    >>> rays(torch.eye(4)[None], 1.0, (1, 1)).flatten().tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    """
    height, width = sizes
    down = (torch.arange(height) + 0.5 - height / 2) / focal
    across = (torch.arange(width) + 0.5 - width / 2) / focal
    y, x = torch.meshgrid(-down, across, indexing="ij")
    seen = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
    turned = torch.einsum("vrc,hwc->vhwr", poses[:, :3, :3].float(), seen / seen.norm(dim=-1, keepdim=True))
    begins = poses[:, None, None, :3, 3].float().expand_as(turned)
    return torch.cat([begins, turned], dim=-1)


def looking_at(places: Tensor, target: Tensor | None = None) -> Tensor:
    """Poses of cameras at these places that look at a target, the scene's z being up: views × 4 × 4.

    Symbols: `places`, views × 3; `target`, 3, the origin if None. A camera that looks straight up or down has the
    scene's y up.

    Raises:
        TaskError: a camera stands at its target.

    >>> looking_at(torch.tensor([[0.0, -2.0, 0.0]]))[0, :3, 2].tolist()  # its z looks away from the target
    [0.0, -1.0, 0.0]
    """
    places = places.double()
    back = places if target is None else places - target.double()
    if bool((back.norm(dim=-1) == 0).any()):
        raise TaskError("A camera stands at what it looks at. Move it away.")
    back = back / back.norm(dim=-1, keepdim=True)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(back)
    level = torch.where(back[:, 2:].abs() > 1 - 1e-9, up.roll(-1, -1), up)
    right = torch.linalg.cross(level, back)
    right = right / right.norm(dim=-1, keepdim=True)
    poses = torch.eye(4, dtype=torch.float64).repeat(len(places), 1, 1)
    poses[:, :3] = torch.stack([right, torch.linalg.cross(back, right), back, places], dim=-1)
    return poses.float()
