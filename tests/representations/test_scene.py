"""A small scene as a radiance field: its task, trained, searched, packed and seen from a new place."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import rank_search as rs
from rank_search.errors import TaskError

R = rs.representations
SIZE, SAMPLES = 8, 8
PAGE = Path(__file__).parents[2] / "docs" / "representations.md"


def views(count: int, first: float) -> R.Views:
    """A ball of two colours before white, from places around it."""
    turns = first + torch.arange(count) * 2 * math.pi / count
    poses = R.looking_at(torch.stack([2 * turns.cos(), 2 * turns.sin(), torch.full_like(turns, 0.7)], -1))
    every = R.rays(poses, 1.5 * SIZE, (SIZE, SIZE))
    points, lengths = R.along(every.flatten(0, 2), torch.full((1, 64), 0.5))
    inside = (points[:, :3].norm(dim=-1) < 0.5).float().reshape(-1, 64)
    upper = (points[:, 2:3] > 0).float().reshape(-1, 64, 1)
    weights = R.ray_weights(1e3 * inside, lengths)[..., None]
    colours = upper * torch.tensor([0.9, 0.2, 0.1]) + (1 - upper) * torch.tensor([0.1, 0.3, 0.8])
    images = (weights * colours).sum(1) + 1 - weights.sum(1)
    return R.Views(images.reshape(count, SIZE, SIZE, 3).clamp(0, 1), poses, 1.5 * SIZE)


TRAINING, SELECTION, TEST = views(6, 0.0), views(2, 0.3), views(2, 0.6)


def network() -> nn.Module:
    return R.radiance_field(2, width=16, depth=2)


def task_of(model: nn.Module) -> R.Scene:
    return R.Scene(model, TRAINING, SELECTION, TEST, SAMPLES, batch=64, batches=2)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return R.trained_scene(network, TRAINING, steps=250, batch=64, samples=SAMPLES, learning_rate=1e-2)


@pytest.fixture(scope="module")
def searched(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[rs.Result, Path]:
    folder = tmp_path_factory.mktemp("scene")
    tables = {
        "study": {"name": "ball", "trials": 2},
        "task": {"factory": "(in memory)"},
        "layers": {"factorizations": ["svd"]},
        "search": {
            "objectives": [{"name": "psnr", "direction": "maximize"}, "bits"],
            "entropy": {"low": 0.003, "high": 0.3},
            "seeds": {"allocations": 1},
        },
        "training": {"epochs": 3, "learning_rate": 1e-3},
        "coding": {"rounding": "grid"},
        "folder": folder,
    }
    study = rs.Study.model_validate(tables)
    return rs.run_study(study, task=task_of(trained), store=str(folder / "s.sqlite")), folder


def test_views_that_were_not_trained_on_are_seen(trained: nn.Module) -> None:
    task, untrained = task_of(trained), network()
    with torch.no_grad():
        found, before = (task.evaluate(each, task.test() or [])["psnr"] for each in (trained, untrained))
    assert found > max(17, before + 6)


def test_decibels_are_of_all_pixels_of_the_pictures_as_rendered(trained: nn.Module) -> None:
    task = task_of(trained)
    pictures = R.render_views(trained, SELECTION.poses, SELECTION.focal, SELECTION.sizes, SAMPLES)
    error = float((pictures.double() - SELECTION.images.double()).square().mean())
    with torch.no_grad():
        assert task.evaluate(trained, task.selection())["psnr"] == pytest.approx(-10 * math.log10(error))
    (first, second) = task.selection()
    assert [len(each[-1]) for each in (first, second)] == [SIZE**2] * 2


def test_the_loss_of_the_training_views_mean_is_one() -> None:
    """Whatever their contrast, as for a signal: here the background alone is seen, and has their mean's gray."""
    gray = TRAINING.images.mean(-1, keepdim=True).expand(-1, -1, -1, 3)
    gray_views, mean = dataclasses.replace(TRAINING, images=gray), float(gray.mean())
    empty = network()
    with torch.no_grad():
        empty.get_parameter("density.weight").zero_()
        empty.get_parameter("density.bias").fill_(-100)
    task = R.Scene(empty, gray_views, SELECTION, samples=SAMPLES, background=mean, batch=4096, batches=1)
    torch.manual_seed(0)
    (batch,) = task.training()
    assert float(task.loss(empty, batch).detach()) == pytest.approx(1.0, rel=0.1)
    assert float(task.distilled_loss(empty, empty, batch, 0.5, 1.0).detach()) == pytest.approx(0.5, rel=0.1)


def test_batches_are_drawn_by_torchs_generator_and_the_loss_is_of_the_batch_alone(trained: nn.Module) -> None:
    task = task_of(trained)
    torch.manual_seed(3)
    first, other = task.training()
    torch.manual_seed(3)
    again, _ = task.training()
    assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(task.loss(trained, first), task.loss(trained, first)), "no draw is left to the loss"


def test_no_set_of_views_may_have_a_pose_of_another(trained: nn.Module) -> None:
    with pytest.raises(TaskError, match="of the selection views has the pose of one of the training views"):
        R.Scene(trained, TRAINING, views(3, 0.0))
    with pytest.raises(TaskError, match="of the test views has the pose of one of the selection views"):
        R.Scene(trained, TRAINING, SELECTION, SELECTION)


def test_what_is_no_scene_is_refused(trained: nn.Module) -> None:
    white = dataclasses.replace(TRAINING, images=torch.ones_like(TRAINING.images))
    with pytest.raises(TaskError, match="gives the shape"):
        R.Scene(nn.Linear(6, 3), TRAINING, SELECTION)
    with pytest.raises(TaskError, match="does not take points and directions"):
        R.Scene(nn.Linear(5, 4), TRAINING, SELECTION)
    with pytest.raises(TaskError, match="have one colour"):
        R.Scene(trained, white, SELECTION)
    with pytest.raises(TaskError, match="samples is 0"):
        R.Scene(trained, TRAINING, SELECTION, samples=0)


def test_it_is_trained_once_and_kept(tmp_path: Path) -> None:
    cache = tmp_path / "ball.safetensors"
    first = R.trained_scene(network, TRAINING, cache, steps=2, batch=16, samples=SAMPLES)
    again = R.trained_scene(network, TRAINING, cache, steps=0, batch=16, samples=SAMPLES)
    assert all(torch.equal(one, same) for one, same in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(TaskError, match="does not hold this network"):
        R.trained_scene(lambda: R.radiance_field(3), TRAINING, cache)


def test_the_front_is_reported_on_views_of_its_own(searched: tuple[rs.Result, Path], trained: nn.Module) -> None:
    result, _ = searched
    assert result.complete
    task = task_of(trained)
    with rs.Store.open(result.store) as store:
        rows = store.trials(result.study)
        member = next(row for row in rows if "test_psnr" in row.measurements)
        model = rs.build_model(store, "ball", member.number, task).eval()
    with torch.no_grad():
        on_selection, on_test = (task.evaluate(model, each or [])["psnr"] for each in (task.selection(), task.test()))
    assert member.measurements["psnr"] == pytest.approx(on_selection, abs=1e-3)
    assert member.measurements["test_psnr"] == pytest.approx(on_test, abs=1e-3)


def test_a_packed_scene_is_seen_as_it_was_measured(
    searched: tuple[rs.Result, Path], trained: nn.Module, tmp_path: Path
) -> None:
    result, _ = searched
    task = task_of(trained)
    with rs.Store.open(result.store) as store:
        row = store.trials(result.study)[0]
        packed = rs.pack_trial(store, "ball", row.number, tmp_path / "ball.rsz", task)
    assert 8 * len(packed.payload) == row.measurements["bits"]
    loaded = rs.load(tmp_path / "ball.rsz")
    with torch.no_grad():
        assert task.evaluate(loaded, task.selection())["psnr"] == pytest.approx(row.measurements["psnr"], abs=1e-3)
    assert R.render_views(loaded, TEST.poses, 2 * TEST.focal, (12, 20), SAMPLES).shape == (2, 12, 20, 3)


def write_views(folder: Path, part: str, shown: R.Views) -> None:
    """As a transforms.json and its pictures, in a world twice as large."""
    frames = []
    for place, (image, pose) in enumerate(zip(shown.images, shown.poses.clone(), strict=True)):
        Image.fromarray((image * 255).round().byte().numpy()).save(folder / f"{part}{place}.png")
        pose[:3, 3] *= 2
        frames.append({"file_path": f"{part}{place}.png", "transform_matrix": pose.tolist()})
    angle = 2 * math.atan(SIZE / 2 / shown.focal)
    (folder / f"transforms_{part}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))


def test_the_page_reads_posed_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r'^```python title="scene.py"\n(.*?)^```', PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    for part, shown in (("train", TRAINING), ("val", SELECTION), ("test", TEST)):
        write_views(tmp_path, part, shown)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "scene.py", "exec"), names)
    task = names["task"](steps=1)
    assert torch.allclose(task.training_views.poses, TRAINING.poses)
    assert torch.allclose(task.test_views.images, TEST.images, atol=0.5 / 255 + 1e-6)
    assert task.selection_views.focal == pytest.approx(SELECTION.focal)
