"""Inputs are made once for a network, settings and a seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rank_search.sources import SynthesisSettings, cached, cached_sequences
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


class Writer(nn.Module):
    """A language model that counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Embedding(5, 5)
        self.ran = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.ran += 1
        found: Tensor = self.logits(input_ids)
        return found


def test_sequences_are_sampled_once_for_each_model_number_and_seed(tmp_path: Path) -> None:
    model = Writer()
    example = {"input_ids": torch.zeros(1, 4, dtype=torch.int32), "attention_mask": torch.ones(1, 4).long()}

    def sampled(length: int = 6, seed: int = 0) -> list[dict[str, Tensor]]:
        model.ran = 0
        return cached_sequences(model, example, batches=2, batch_size=3, length=length, seed=seed, folder=tmp_path)

    made, runs = sampled(), model.ran
    read, again = sampled(), model.ran
    assert runs > 0
    assert again == 0
    assert len(made) == len(read) == 2
    for one, other in zip(made, read, strict=True):
        assert {name: (each.dtype, each.shape) for name, each in other.items()} == {
            "input_ids": (torch.int32, (3, 6)),
            "attention_mask": (torch.int32, (3, 6)),
        }
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert sampled(length=7)[0]["input_ids"].shape == (3, 7)
    assert not torch.equal(sampled(seed=1)[0]["input_ids"], made[0]["input_ids"])
    with torch.no_grad():
        model.logits.weight.neg_()
    sampled()
    assert model.ran > 0
