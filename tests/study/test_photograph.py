"""The task of studies/photograph.toml, on a network that is hardly trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rank_search as rs
from tests.study.study_modules import STUDIES, study_module


def test_a_photograph_is_cropped_and_its_network_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with study_module("photograph") as study:
        monkeypatch.setattr(study, "CACHE", tmp_path)
        task = study.task("flower.jpg", crop=32, neurons=8, depth=2, steps=2)
        again = study.task("flower.jpg", crop=32, neurons=8, depth=2, steps=2)
        whole, scaled = study.photograph("china.jpg", 0, 0), study.photograph("china.jpg", 0, 64)
    assert isinstance(task, rs.Representation)
    assert task.signal_samples() == 32**2
    assert len(list(tmp_path.glob("flower-32-*.safetensors"))) == 1
    for first, second in zip(task.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(first, second)
    assert (whole.sizes, scaled.sizes) == ((427, 640), (43, 64))


def test_the_study_file_asks_for_decibels_and_bits() -> None:
    study = rs.load_study(STUDIES / "photograph.toml")
    assert [(each.name, each.direction) for each in study.search.objectives] == [
        ("psnr", "maximize"),
        ("bits_per_sample", "minimize"),
    ]
