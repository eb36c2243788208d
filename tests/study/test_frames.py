"""The task of studies/frames.toml, on networks that are hardly trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rank_search as rs
from tests.study.study_modules import STUDIES, study_module


def test_frames_move_over_the_photograph() -> None:
    with study_module("frames") as study:
        first, second = study.pan("china.jpg", 40, 2, 3.0)
        photographs = study.both(16)
    assert first.sizes == (40, 40)
    assert torch.allclose(first.values[:, 5:-2], second.values[:, 2:-5], atol=0.01), (
        "three pixels of forty to the right"
    )
    assert [each.sizes for each in photographs] == [(16, 16)] * 2


def test_a_network_for_each_frame_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with study_module("frames") as study:
        monkeypatch.setattr(study, "CACHE", tmp_path)
        task = study.task(size=8, frames=3, neurons=8, depth=2, steps=2)
    assert task.signal_samples() == 3 * 8**2
    assert len(list(tmp_path.glob("china-8-3-2-8x2-2-1.safetensors"))) == 1


def test_the_study_file_ties_the_layers_of_all_frames() -> None:
    study = rs.load_study(STUDIES / "frames.toml")
    assert study.layers.tie == (("networks.*.{layer}",),)
    assert study.layers.factorizations == ("shared-plus-own",)
