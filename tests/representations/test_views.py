"""Poses, rays and volume rendering, against geometry that is known."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError

R = rs.representations
SIZE = 16


class Ball(nn.Module):
    """A red ball that hides what is behind it, in empty space."""

    def __init__(self, radius: float = 0.5, density: float = 1e3) -> None:
        super().__init__()
        self.radius, self.density = radius, density
        self.register_buffer("colour", torch.tensor([1.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        inside = (x[:, :3].norm(dim=-1, keepdim=True) < self.radius).float()
        return torch.cat([self.get_buffer("colour").expand(len(x), 3), self.density * inside], dim=-1)


def front() -> Tensor:
    """One camera, two away from the origin."""
    return R.looking_at(torch.tensor([[0.0, -2.0, 0.0]]))


def picture(network: nn.Module, background: float = 1.0, samples: int = 64) -> Tensor:
    return R.render_views(network, front(), 1.5 * SIZE, (SIZE, SIZE), samples, background)[0]


def test_an_opaque_ball_is_seen_in_the_middle_and_the_background_around_it() -> None:
    """Its rim is where the angle's sine is radius / distance."""
    seen = R.rays(front(), 1.5 * SIZE, (SIZE, SIZE))[0]
    sine = (1 - seen[..., 4].square()).clamp(min=0).sqrt()
    found = picture(Ball())
    assert torch.allclose(found[sine < 0.24], torch.tensor([1.0, 0.0, 0.0]), atol=1e-5)
    assert torch.allclose(found[sine > 0.26], torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_empty_space_gives_the_background(background: float) -> None:
    assert torch.allclose(picture(Ball(density=0.0), background), torch.full((SIZE, SIZE, 3), background))


def test_what_is_half_transparent_is_so_by_the_law_of_beer_and_lambert() -> None:
    """Through the middle of a ball as large as the unit sphere, 2 long: exp(−2·σ) of the background is left."""
    points, lengths = R.along(torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0, -1.0]]), torch.full((1, 8), 0.5))
    weights = R.ray_weights(Ball(2.0, 0.4)(points)[:, 3].reshape(1, 8), lengths)
    assert float(weights.sum()) == pytest.approx(1 - math.exp(-0.8))


def test_a_picture_at_another_resolution_is_of_the_same_scene() -> None:
    fine = R.render_views(Ball(), front(), 3.0 * SIZE, (2 * SIZE, 2 * SIZE), 64)[0]
    coarse = fine.unflatten(0, (SIZE, 2)).unflatten(2, (SIZE, 2)).mean((1, 3))
    assert float((coarse - picture(Ball())).abs().mean()) < 0.03


@given(
    arrays.arrays(np.float32, (3, 5), elements=st.floats(0, 1e6, width=32)),
    arrays.arrays(np.float32, (3,), elements=st.floats(0, 2, width=32)),
)
def test_weights_of_a_ray_are_shares(densities: NDArray[np.float32], lengths: NDArray[np.float32]) -> None:
    """None is negative, and with what passes all of them they sum to one."""
    hidden = torch.from_numpy(densities).double(), torch.from_numpy(lengths).double()
    weights = R.ray_weights(*hidden)
    passed = torch.exp(-hidden[0].sum(-1) * hidden[1])
    assert bool((weights >= 0).all())
    assert torch.allclose(weights.sum(-1) + passed, torch.ones(3, dtype=torch.float64))


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-3, 3, width=32)), st.integers(1, 7))
def test_points_on_rays_are_in_the_unit_sphere_and_in_order(places: NDArray[np.float32], samples: int) -> None:
    begins = torch.from_numpy(places) + torch.tensor([0.0, 0.0, 3.5])
    seen = torch.cat([begins, torch.tensor([0.0, 0.0, -1.0]).expand(4, 3)], dim=-1)
    points, lengths = R.along(seen, torch.full((1, samples), 0.5))
    depth = points.reshape(4, samples, 6)[..., 2]
    met = lengths > 0
    assert bool((points.reshape(4, samples, 6)[met][..., :3].norm(dim=-1) < 1.001).all())
    assert bool((depth[met].diff(dim=-1) < 0).all())
    assert bool((lengths >= 0).all())
    assert not bool(met[begins[:, :2].norm(dim=-1) > 1].any()), "they miss it"


def test_a_ray_that_has_left_the_sphere_behind_sees_nothing_of_it() -> None:
    away = torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0, 1.0]])
    inside = torch.tensor([[0.0, 0.0, 0.5, 0.0, 0.0, 1.0]])
    _, lengths = R.along(torch.cat([away, inside]), torch.zeros(1, 1))
    assert lengths.tolist() == pytest.approx([0.0, 0.5])


def test_gradients_are_finite_where_a_ray_touches_or_hides_everything() -> None:
    network = R.radiance_field(2, width=8, depth=2)
    with torch.no_grad():
        network.density.bias += 1e4
    seen = torch.tensor([[1.0, 0.0, 3.0, 0.0, 0.0, -1.0], [0.0, 0.0, 3.0, 0.0, 0.0, -1.0]])
    points, lengths = R.along(seen, torch.full((1, 4), 0.5))
    values = network(points).reshape(2, 4, 4)
    torch.autograd.backward((R.ray_weights(values[..., 3], lengths)[..., None] * values[..., :3]).sum())
    assert all(bool(each.grad.isfinite().all()) for each in network.parameters() if each.grad is not None)


def test_a_pose_turns_without_scaling_and_looks_at_its_target() -> None:
    places, target = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 2.0], [0.5, -2.0, 0.0]]), torch.tensor([0.0, 0.0, 0.5])
    poses = R.looking_at(places, target)
    turns = poses[:, :3, :3]
    assert torch.allclose(turns.mT @ turns, torch.eye(3).expand(3, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(turns), torch.ones(3))
    middle = R.rays(poses, 4.0, (1, 1))[:, 0, 0]
    towards = torch.nn.functional.normalize(target - places, dim=-1)
    assert torch.allclose(middle, torch.cat([places, towards], dim=-1), atol=1e-6)


def test_the_upper_right_pixel_looks_up_and_to_the_right() -> None:
    seen = R.rays(torch.eye(4)[None], 2.0, (2, 2))[0, 0, 1]
    assert torch.allclose(seen[3:] / -seen[5], torch.tensor([0.25, 0.25, -1.0]))


def test_a_camera_at_its_target_is_refused() -> None:
    with pytest.raises(TaskError, match="stands at what it looks at"):
        R.looking_at(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("images", "poses", "focal", "said"),
    [
        (torch.zeros(4, 4, 3), torch.eye(4)[None], 4.0, r"shape \(4, 4, 3\); they are views × height"),
        (torch.full((1, 4, 4, 3), 255.0), torch.eye(4)[None], 4.0, "Divide numbers of 8 bits by 255"),
        (torch.full((1, 4, 4, 3), math.nan), torch.eye(4)[None], 4.0, "outside of 0 to 1"),
        (torch.zeros(2, 4, 4, 3), torch.eye(4)[None], 4.0, r"shape \(1, 4, 4\) for 2 images"),
        (torch.zeros(1, 4, 4, 3), 2 * torch.eye(4)[None], 4.0, "Pose 0 is no camera's"),
        (torch.zeros(1, 4, 4, 3), torch.eye(4)[None], 0.0, "focal length is 0 pixels"),
    ],
)
def test_what_is_no_picture_from_a_place_is_refused(images: Tensor, poses: Tensor, focal: float, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        R.Views(images, poses, focal)
