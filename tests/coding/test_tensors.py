from __future__ import annotations

import pytest
import torch

from rank_search.coding import from_safetensors, to_safetensors
from rank_search.errors import TrialError


def test_safetensors_round_trip_of_any_state_dict() -> None:
    shared = torch.randn(4, 4)
    state = {"a": shared, "b": shared, "t": shared.T, "n": torch.tensor(3), "e": torch.zeros(0, 2)}
    back = from_safetensors(to_safetensors(state))
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_safetensors_refuse_other_bytes() -> None:
    with pytest.raises(TrialError, match="safetensors format"):
        from_safetensors(b"something else")
