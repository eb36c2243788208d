"""A model that is called by names, from its batches to a small file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs


class Reader(nn.Module):
    """Ids and a mask by name, in an order of its own, and a dictionary as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(50, 16), nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, attention_mask: Tensor, input_ids: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        seen = attention_mask[..., None]
        x = (self.table(input_ids) * seen).sum(1) / seen.sum(1)
        return {"logits": scale * self.head(torch.relu(self.inner(x)))}


def batches(count: int = 3, length: int = 6) -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    made = []
    for _ in range(count):
        mask = torch.ones(8, length)
        mask[::2, -2:] = 0
        labels = torch.randint(4, (8,))
        made.append({"input_ids": torch.randint(50, (8, length)), "attention_mask": mask, "labels": labels})
    return made


def one(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each[:1] for name, each in batch.items() if name != "labels"}


def test_a_model_of_named_inputs_is_searched_and_allocated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Reader(), batches()
    found = rs.compress(
        model,
        train=data,
        selection=data,
        trials=5,
        store=tmp_path / "s.sqlite",
        training={"epochs": 1},
        latency={"repeats": 2},
    )
    assert len(found.front) > 0
    table = rs.options(model, data, example=one(data[0]))
    small = rs.factorize(model, rs.allocate(table, params=0.9), table, data)
    assert small(**one(data[0]))["logits"].shape == (1, 4)


def test_a_model_of_named_inputs_is_rounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Reader().eval(), batches()
    packed = rs.pack_model(model, data, example=one(data[0]), slope=1e-6)
    assert packed.error < 1e-3
    with pytest.raises(rs.RankSearchError, match="other than floating-point inputs"):
        rs.pack_model(model, example=one(data[0]))
