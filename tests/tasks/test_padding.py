"""What layers see at padded positions is not counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import take_inventory
from rank_search.tasks import input_moments, moments_of_inputs
from rank_search.tasks.occurrences import frequencies


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = torch.relu(self.inner(self.table(input_ids)))
        return self.head(x.mean(1))  # type: ignore[no-any-return]


torch.manual_seed(0)
MODEL = Reader().eval()
IDS, MASK = torch.randint(20, (5, 6)), torch.ones(5, 6, dtype=torch.long)
MASK[1, 2:], MASK[3, 4:] = 0, 0
EXAMPLE = {"input_ids": IDS[:1], "attention_mask": MASK[:1]}
LAYERS = take_inventory(MODEL, EXAMPLE).layers


def expected(kept: Tensor) -> dict[str, Tensor]:
    """E[x·xᵀ] with a loop over what is kept; the head sees means, all of which count."""
    with torch.no_grad():
        table = MODEL.table(IDS)
        means = torch.relu(MODEL.inner(table)).mean(1)
    rows = [table[b, t] for b in range(5) for t in range(6) if kept[b, t]]
    counts = torch.tensor(
        [sum(int(IDS[b, t]) == token for b in range(5) for t in range(6) if kept[b, t]) for token in range(20)]
    )
    return {
        "table": frequencies(counts.double()).float(),
        "inner": torch.stack([torch.outer(row, row) for row in rows]).mean(0),
        "head": torch.stack([torch.outer(row, row) for row in means]).mean(0),
    }


def check(found: Mapping[str, Tensor], kept: Tensor) -> None:
    for name, moment in expected(kept).items():
        torch.testing.assert_close(found[name].to(moment.dtype), moment, rtol=1e-4, atol=1e-6)  # some are short of data


class Task(rs.Task):
    def __init__(self, batches: list[Any], own: Tensor | None = None) -> None:
        self.batches, self.own = batches, own

    def model(self) -> nn.Module:
        return MODEL

    def example(self) -> Any:
        return EXAMPLE

    def training(self) -> list[Any]:
        return self.batches

    selection = test = training

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return (model(**batch) if isinstance(batch, dict) else model(*batch)).square().mean()  # type: ignore[no-any-return]

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, float]:
        return {"error": 0.0}

    def mask(self, batch: Any) -> Tensor | None:
        return self.own


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float])
def test_the_attention_mask_says_what_is_an_input(dtype: torch.dtype) -> None:
    batch = {"input_ids": IDS, "attention_mask": MASK.to(dtype)}
    check(input_moments(Task([batch]), MODEL, LAYERS, 1), MASK)
    check(input_moments(Task([(IDS, MASK.to(dtype))]), MODEL, LAYERS, 1), MASK)
    check(moments_of_inputs(MODEL, LAYERS, [batch]), MASK)


def test_a_task_may_say_it() -> None:
    check(input_moments(Task([(IDS,)], MASK), MODEL, LAYERS, 1), MASK)
    other = 1 - MASK
    check(input_moments(Task([{"input_ids": IDS, "attention_mask": MASK}], other), MODEL, LAYERS, 1), other)


def test_without_a_mask_all_positions_count() -> None:
    every = torch.ones(5, 6)
    plain = input_moments(Task([(IDS,)]), MODEL, LAYERS, 1)
    check(plain, every)
    same = input_moments(Task([(IDS, torch.ones(5, 6))]), MODEL, LAYERS, 1)
    assert all(torch.equal(same[name], plain[name]) for name in plain)
    added = torch.where(MASK == 0, -1e9, 0.0)  # to be added to attention, not a mask of positions
    check(input_moments(Task([(IDS, added)]), MODEL, LAYERS, 1), every)


class Convolved(nn.Module):
    """As many channels as there are positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.along = nn.Embedding(20, 6), nn.Conv1d(6, 4, 3, padding=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.along(self.table(input_ids).mT).mean(2)  # type: ignore[no-any-return]


def test_channels_of_a_convolution_are_no_positions() -> None:
    model = Convolved().eval()
    layers = take_inventory(model, EXAMPLE).layers
    with torch.no_grad():
        x = torch.nn.functional.pad(model.table(IDS).mT, (1, 1))
    rows = [x[b, :, t : t + 3].flatten() for b in range(5) for t in range(6)]
    found = moments_of_inputs(model, layers, [{"input_ids": IDS, "attention_mask": MASK}])
    wanted = torch.stack([torch.outer(row, row) for row in rows]).mean(0)
    torch.testing.assert_close(found["along"], wanted, rtol=1e-4, atol=1e-6)
