"""The task of studies/cifar_resnet.toml, on a few random images and an untrained network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import rank_search as rs
from tests.study.study_modules import STUDIES, study_module


@pytest.fixture
def study() -> Iterator[ModuleType]:
    with study_module("cifar_resnet") as module:
        yield module


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """No two images are alike."""
    drawn = np.random.default_rng(seed)
    return drawn.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), drawn.integers(0, 10, count)


@pytest.fixture
def files(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two training files of 20 images, a test file of 12, and the weights of an untrained ResNet-8."""
    monkeypatch.setattr(study, "HERE", tmp_path)
    (tmp_path / "data").mkdir()
    for name, count, seed in (("train_1", 20, 1), ("train_2", 20, 2), ("test_dev", 12, 3)):
        pixels, labels = images(count, seed)
        np.savez(tmp_path / "data" / f"{name}.npz", images=pixels, labels=labels)
    torch.manual_seed(0)
    save_file(study.ResNet(8).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path


@pytest.fixture
def task(study: ModuleType, files: Path) -> rs.Supervised:
    made = study.task("data", "weights.safetensors", depth=8, batch=7)
    assert isinstance(made, rs.Supervised)
    return made


def test_the_network_is_that_of_the_file(task: rs.Supervised, files: Path, study: ModuleType) -> None:
    torch.manual_seed(0)
    expected = study.ResNet(8).eval()
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(task.network(x), expected(x))
    assert task.network(x).shape == (3, 10)
    assert not task.network.training
    convolutions = [module for module in expected.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 7  # depth 8 without the linear layer
    assert sum(parameter.numel() for parameter in study.ResNet(20).parameters()) == 269_722  # He et al.: 0.27 M


def test_the_three_splits_are_disjoint_and_whole(task: rs.Supervised) -> None:
    stored = np.concatenate([images(20, 1)[0], images(20, 2)[0]])
    training, selection, test = task.training_batches, task.selection_batches, task.test_batches
    assert np.array_equal(training.pixels.numpy(), stored)
    kept = {each.tobytes() for split in (selection, test) for each in split.pixels.numpy()}
    assert kept == {each.tobytes() for each in images(12, 3)[0]}
    assert len(selection.labels) + len(test.labels) == 12
    assert [len(labels) for _, labels in training] == [7, 7, 7, 7, 7, 5]
    assert len(training) == 6
    (pair,) = selection
    known = {pixels.tobytes(): int(label) for pixels, label in zip(*images(12, 3), strict=True)}
    assert pair[1].tolist() == [known[pixels.tobytes()] for pixels in selection.pixels.numpy()]
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (selection.pixels.double() / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    torch.testing.assert_close(pair[0], expected.float())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_the_halves_have_as_many_of_each_class(drawn: list[int]) -> None:
    labels = torch.tensor(drawn)
    with study_module("cifar_resnet") as study:
        first, second = study.halves(labels)
        again = study.halves(labels)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(drawn)))
    for label in set(drawn):
        assert int((labels[first] == label).sum()) - int((labels[second] == label).sum()) == drawn.count(label) % 2
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_a_pass_is_made_by_the_global_generator(task: rs.Supervised) -> None:
    passes = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        passes.append(torch.cat([pixels for pixels, _ in task.training()]))
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])
    assert torch.equal(*(torch.cat([pixels for pixels, _ in task.selection()]) for _ in range(2)))


def test_each_image_has_one_shift_of_its_own_and_perhaps_a_flip(study: ModuleType) -> None:
    given = torch.from_numpy(images(60, 4)[0])
    torch.manual_seed(0)
    found = study.shifted_and_flipped(given)
    assert found.dtype == torch.uint8
    moves = [_move(before, after) for before, after in zip(given, found, strict=True)]
    assert {flip for *_, flip in moves} == {False, True}
    assert {top for top, *_ in moves} == set(range(-4, 5))
    assert {left for _, left, _ in moves} == set(range(-4, 5))
    assert len(set(moves)) > 30


def _move(before: Tensor, after: Tensor) -> tuple[int, int, bool]:
    """The one shift within 4 pixels, and flip, that makes the second image of the first; black comes in."""
    found = [
        (top, left, flip)
        for top in range(-4, 5)
        for left in range(-4, 5)
        for flip in (False, True)
        if torch.equal(_moved(before, top, left, flip), after)
    ]
    assert len(found) == 1
    return found[0]


def _moved(image: Tensor, top: int, left: int, flip: bool) -> Tensor:
    result = torch.zeros_like(image)
    for row in range(max(0, -top), min(32, 32 - top)):
        columns = slice(max(0, -left), min(32, 32 - left))
        result[:, row, columns] = image[:, row + top, columns.start + left : columns.stop + left]
    return result.flip(2) if flip else result


def test_a_shortcut_has_every_other_pixel_and_channels_of_zeros_around(study: ModuleType) -> None:
    block = study.BasicBlock(4, 8, stride=2)
    x = torch.randn(2, 4, 6, 6)
    expected = torch.zeros(2, 8, 3, 3)
    for row in range(3):
        for column in range(3):
            expected[:, 2:6, row, column] = x[:, :, 2 * row, 2 * column]
    assert torch.equal(block._shortcut(x), expected)
    assert torch.equal(study.BasicBlock(4, 4, stride=1)._shortcut(x), x)


def test_the_task_measures_and_has_a_loss(task: rs.Supervised) -> None:
    measured = task.evaluate(task.network, task.selection())
    wrong = [(task.network(x).argmax(1) != y).float() for x, y in task.selection()]
    assert measured["error"] == pytest.approx(float(torch.cat(wrong).mean()))
    loss = task.loss(task.network, next(iter(task.training())))
    assert loss.isfinite()
    x, y = next(iter(task.selection()))
    assert task.loss(task.network, (x, y)).item() == pytest.approx(F.cross_entropy(task.network(x), y).item(), rel=1e-5)


def test_the_study_file_says_what_the_task_takes(study: ModuleType) -> None:
    loaded = rs.load_study(STUDIES / "cifar_resnet.toml")
    assert loaded.task.factory == "cifar_resnet.py:task"
    assert set(loaded.task.options) <= set(study.task.__annotations__)
    assert list(loaded.layers.exclude) == ["conv1", "linear"]
