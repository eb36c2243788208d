"""Synthetic inputs are made once for a network, settings and a seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rank_search.sources import SynthesisSettings, cached
from tests.sources import small_networks

FEW = SynthesisSettings(batch_size=64, steps=2, batches=2)


def steps_of(folder: Path | None, *, settings: SynthesisSettings = FEW, seed: int = 0, weight: float = 0.0) -> int:
    """How many steps it took."""
    model, told = small_networks.vectors(), [0]
    with torch.no_grad():
        model[3].bias.add_(weight)  # type: ignore[index, union-attr]
    cached(
        model,
        torch.zeros(1, 7),
        settings=settings,
        seed=seed,
        folder=folder,
        progress=lambda done, total: told.append(done),
    )
    return max(told)


def test_they_are_made_once_for_each_network_settings_and_seed(tmp_path: Path) -> None:
    assert steps_of(tmp_path) == 4
    assert steps_of(tmp_path) == 0
    assert steps_of(tmp_path, settings=FEW.model_copy(update={"at_once": 8})) == 0
    assert steps_of(tmp_path, seed=1) == 4
    assert steps_of(tmp_path, weight=0.1) == 4
    assert steps_of(tmp_path, settings=FEW.model_copy(update={"steps": 3})) == 6
    assert steps_of(None) == 4


def test_what_is_read_is_what_was_made(tmp_path: Path) -> None:
    model = small_networks.TwoInputs()
    example = {"image": torch.zeros(1, 1, 5, 5), "vector": torch.zeros(1, 5), "table": torch.ones(2, 2)}
    made, read = (cached(model, example, settings=FEW, seed=0, folder=tmp_path) for _ in range(2))
    assert len(made) == len(read) == 2
    for one, other in zip(made, read, strict=True):
        assert list(other) == ["image", "vector", "table"]
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_file_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps_of(tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    assert steps_of(tmp_path) == 4
    assert "made anew" in caplog.text
    assert steps_of(tmp_path) == 0
