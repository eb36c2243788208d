"""Sequences that a language model writes: its own probabilities come back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.errors import SourceError, TaskError
from rank_search.sources import sampled_sequences

CHAIN = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.5, 0.5], [0.7, 0.0, 0.3]])


class Chain(nn.Module):
    """Each token's probabilities depend on the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(CHAIN.log().clamp_min(-1e9))

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits[ids]


class Named(Chain):
    """As those of Hugging Face."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool = True) -> Any:  # type: ignore[override]
        assert attention_mask.shape == input_ids.shape
        assert bool(attention_mask.all())
        assert not use_cache
        return SimpleNamespace(logits=super().forward(input_ids), past=None)


IDS = torch.zeros(1, 4, dtype=torch.long)


def test_tokens_follow_each_other_as_the_model_says() -> None:
    batches = sampled_sequences(Chain(), IDS, batches=2, batch_size=200, length=30, seed=0)
    assert [each.shape for each in batches] == [(200, 30)] * 2
    ids = torch.cat(batches)
    pairs = torch.stack([ids[:, :-1].flatten(), ids[:, 1:].flatten()])
    counts = torch.zeros(3, 3).index_put_(tuple(pairs), torch.ones(pairs.shape[1]), accumulate=True)
    torch.testing.assert_close(counts / counts.sum(1, keepdim=True), CHAIN, atol=0.02, rtol=0)
    assert ids[:, 0].bincount(minlength=3).min() > 100  # uniform
    again = sampled_sequences(Chain(), IDS, batches=2, batch_size=200, length=30, seed=0)
    assert all(torch.equal(one, other) for one, other in zip(batches, again, strict=True))
    assert not torch.equal(*batches)


def test_they_may_begin_with_one_token_and_be_cold() -> None:
    (batch,) = sampled_sequences(Chain(), IDS, batches=1, batch_size=6, length=5, seed=0, first=0, temperature=0.01)
    assert batch[:, :2].tolist() == [[0, 1]] * 6  # the likeliest after 0


def test_models_are_called_by_name_as_the_example_is() -> None:
    example = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "use_cache": False}
    (batch,) = sampled_sequences(Named(), example, batches=1, batch_size=3, length=7, seed=0)
    assert batch["input_ids"].shape == (3, 7)
    assert batch["attention_mask"].shape == (3, 7)
    assert batch["use_cache"] is False
    (plain,) = sampled_sequences(Chain(), (IDS,), batches=1, batch_size=3, length=7, seed=0)
    assert torch.equal(plain[0], batch["input_ids"])


def test_the_model_is_left_as_it_was() -> None:
    model, state = Chain().train(), torch.get_rng_state()
    sampled_sequences(model, IDS, batches=1, batch_size=2, length=3, seed=0)
    assert model.training
    assert model.logits.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("model", "example", "more", "fault"),
    [
        (Chain(), torch.zeros(1, 3, 8, 8), {}, r"float32 of shape \(1, 3, 8, 8\).*takes token ids"),
        (Chain(), {"pixels": torch.zeros(1, 3)}, {}, "float32 of shape"),
        (nn.Embedding(3, 3), IDS[0], {}, r"int64 of shape \(4,\)"),
        (nn.Sequential(nn.Embedding(3, 3), nn.Flatten()), IDS, {}, r"gives a tensor of shape \(1, 3\)"),
        (nn.Sequential(nn.Embedding(3, 4), nn.Linear(3, 3)), IDS, {}, "forward raised RuntimeError"),
        (Chain(), IDS, {"first": 3}, "first token 3 is none of the model's 3"),
        (Chain(), IDS, {"temperature": 0.0}, "at a temperature of 0 cannot be sampled"),
    ],
)
def test_what_cannot_be_sampled_is_refused(model: nn.Module, example: Any, more: dict[str, Any], fault: str) -> None:
    with pytest.raises((SourceError, TaskError), match=fault):
        sampled_sequences(model, example, batches=1, batch_size=2, length=3, seed=0, **more)
