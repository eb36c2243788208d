"""A study in which no layer can be factorized searches the strengths of penalties alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.errors import LayerError

NOTHING: dict[str, Any] = {"rules": [{"match": "*", "factorizations": []}]}


def studied(folder: Path, layers: dict[str, Any], search: dict[str, Any]) -> rs.Result:
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    batches = [(x, x[:, :1] * x[:, 1:])]
    network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    task = rs.Supervised(
        network, batches, batches, None, nn.functional.mse_loss, lambda y, t: float((y - t).abs().mean())
    )
    tables = {
        "study": {"name": "s", "trials": 5},
        "task": {"factory": "(in memory)"},
        "layers": layers,
        "search": {"objectives": ["error", "bits"], **search},
        "training": {"epochs": 2},
        "folder": folder,
    }
    return rs.run_study(rs.Study.model_validate(tables), task=task, store=str(folder / "s.sqlite"))


@pytest.mark.parametrize("sampler", ["auto", "tpe", "bolaco"])
@pytest.mark.parametrize("layers", [NOTHING, {"exclude": ["*"]}])
def test_the_strength_of_entropy_is_searched_alone(tmp_path: Path, layers: dict[str, Any], sampler: str) -> None:
    found = studied(tmp_path, layers, {"entropy": {"low": 0.01, "high": 1.0}, "sampler": sampler})
    assert found.complete
    with rs.Store.open(found.store) as store:
        rows = store.trials(found.study)
    assert len({row.point.penalties["entropy"] for row in rows}) == 5
    assert all(row.state is rs.State.COMPLETE for row in rows)
    assert rows[1].measurements["bits"] < rows[0].measurements["bits"] / 2


@pytest.mark.parametrize("layers", [NOTHING, {"exclude": ["*"]}])
def test_without_entropy_there_is_nothing_to_search(tmp_path: Path, layers: dict[str, Any]) -> None:
    with pytest.raises(LayerError, match=r"can be factorized|no layer to factorize"):
        studied(tmp_path, layers, {})
