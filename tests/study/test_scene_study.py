"""The task of studies/scene.toml, on a network that is hardly trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rank_search as rs
from tests.study.study_modules import STUDIES, study_module


def test_the_scene_is_on_white_and_the_same_each_time() -> None:
    with study_module("scene") as study:
        first, again, other = study.views(2, 0.0, 8), study.views(2, 0.0, 8), study.views(2, 1.0, 8)
        near = torch.tensor([[0.0, -3.0, -0.02]]), torch.tensor([[0.0, 1.0, 0.0]])
        (red,) = study.colours(*near)
        missed = study.colours(near[0], -near[1])
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(first.images[:, 0], torch.ones(2, 8, 3)), "above it all is white"
    assert red[0] > 2 * red[1]
    assert torch.equal(missed, torch.ones(1, 3))


def test_what_is_in_the_way_of_the_light_throws_a_shadow() -> None:
    """Of two places on the floor, of one colour, the one that the large sphere hides is darker."""
    with study_module("scene") as study:
        places = torch.tensor([[-0.38, 0.4, 1.0], [0.38, -0.7, 1.0]])
        begins = torch.cat([places[:, :2], torch.full((2, 1), -0.39)], dim=-1)
        hidden, lit = study.colours(begins, torch.tensor([[0.0, 0.0, -1.0]]).expand(2, 3))
    assert float(hidden.sum()) < 0.7 * float(lit.sum())


def test_its_three_sets_of_views_have_no_place_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with study_module("scene") as study:
        monkeypatch.setattr(study, "CACHE", tmp_path)
        task = study.task(size=8, count=4, held_out=2, width=8, depth=2, octaves=2, samples=4, steps=2)
    assert isinstance(task, rs.representations.Scene)
    assert task.test_views is not None
    places = [
        pose.tolist() for each in (task.training_views, task.selection_views, task.test_views) for pose in each.poses
    ]
    assert len({str(each) for each in places}) == 4 + 2 + 2
    assert len(list(tmp_path.glob("scene-8-4-8x2-2-4-2.safetensors"))) == 1


def test_the_study_file_asks_for_decibels_and_bits() -> None:
    study = rs.load_study(STUDIES / "scene.toml")
    assert [(each.name, each.direction) for each in study.search.objectives] == [
        ("psnr", "maximize"),
        ("bits", "minimize"),
    ]
