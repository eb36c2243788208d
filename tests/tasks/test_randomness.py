"""The global generators, kept and put back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rank_search.tasks import generators, set_generators


def test_what_was_left_on_one_gpu_goes_on_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {0: torch.tensor([10]), 1: torch.tensor([11])}
    current = [0]

    def get(number: int | None = None) -> Tensor:
        return states[current[0] if number is None else number]

    def put(state: Tensor, number: int | None = None) -> None:
        states[current[0] if number is None else number] = state

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", get)
    monkeypatch.setattr(torch.cuda, "set_rng_state", put)
    kept = generators()
    current[0], states[0], states[1] = 1, torch.tensor([20]), torch.tensor([21])
    set_generators(kept)
    assert int(states[1]) == 10


def test_a_checkpoint_of_a_gpu_is_read_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    before = generators()
    set_generators({**before, "cuda": torch.tensor([1]), "cuda:0": torch.tensor([1])})
    assert all(torch.equal(state, before[name]) for name, state in generators().items())
