"""Models of Hugging Face's transformers, each from its inventory to a file that gives the same outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import rank_search as rs
from rank_search.errors import ExportError
from rank_search.layers import forward, take_inventory
from tests.pretrained_models import NAMES, pretrained, token_ids


@dataclass(frozen=True, eq=False)
class Near(rs.Task):
    """How far the logits of any model are from the dense one's, on its example and on another batch of its words."""

    network: nn.Module
    one: Any

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Any:
        return self.one

    def training(self) -> Iterable[Any]:
        return [self.one, {name: self._twice(each) for name, each in self.one.items()}]

    def selection(self) -> Iterable[Any]:
        return self.training()

    def test(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return forward(model, batch).logits.square().mean()  # type: ignore[no-any-return]

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        pairs = [(forward(model, each).logits, forward(self.network, each).logits) for each in batches]
        return {"distance": sum(float((found - wanted).double().square().mean()) for found, wanted in pairs)}

    @staticmethod
    def _twice(value: Any) -> Any:
        return torch.cat([value, value.flip(-1)]) if isinstance(value, Tensor) else value


def searched(task: rs.Task, folder: Path, every_kind: bool = False) -> tuple[rs.Store, int]:
    """The store of a search of three trials, and the smallest model in it; by default its matrices alone are cut."""
    model, example = task.model(), task.example()
    others = [] if every_kind else [name for name in take_inventory(model, example).layers if not is_lone(model, name)]
    tables = {
        "study": {"name": "s", "trials": 3, "store": str(folder / "s.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["distance", "params"]},
        "training": {"epochs": 0},
        "layers": {"factorizations": ["svd"], "exclude": others},
        "folder": folder,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    smallest = min(result.front, key=lambda row: row.measurements["params"])
    assert smallest.measurements["params"] < result.study.dense["params"]
    return rs.Store.open(result.store), smallest.number


def is_lone(model: nn.Module, name: str) -> bool:
    """Whether a layer is a linear one that shares nothing."""
    module = model.get_submodule(name)
    sharing = [each for each in model.modules() if getattr(each, "weight", None) is module.weight]
    return isinstance(module, (nn.Linear, Conv1D)) and len(sharing) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_one_row(name: str) -> None:
    model, example = pretrained(name)
    rows = rs.layers(model, example)
    assert sum(row.params for row in rows) == sum(each.numel() for each in set(model.parameters()))
    inventory = take_inventory(model, example)
    assert len(inventory.layers) >= 8
    assert all(each.reason for each in inventory.skipped)
    owners = {row.layer for row in rows}
    assert owners >= {*inventory.layers, *(each.name for each in inventory.skipped)}
    names = defaultdict[Tensor, list[str]](list)
    for parameter, tensor in model.named_parameters(remove_duplicate=False):
        names[tensor].append(parameter)
    for known in names.values():
        assert any(f"{parameter}.".startswith(f"{owner}.") for owner in owners for parameter in known), known


def test_fused_experts_have_rows_of_their_own() -> None:
    model, example = pretrained("mixtral")
    rows = {row.layer: row for row in rs.layers(model, example)}
    experts = rows["model.layers.0.mlp.experts.gate_up_proj"]
    assert (experts.kind, experts.shape, experts.params) == ("Parameter", (3, 48, 16), 3 * 48 * 16)
    assert experts.skipped


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_searched_exported_and_loaded(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, example = pretrained(name)
    if name == "mixtral":
        model.set_experts_implementation("batched_mm")  # type: ignore[operator]
    task = Near(model, example)
    store, number = searched(task, tmp_path, every_kind=True)
    assert "cannot be exported" not in caplog.text
    with store, torch.no_grad():
        small = rs.build_model(store, "s", number, task)
        rs.export_trial(store, "s", number, tmp_path / "small", task=task)
        back = rs.load(tmp_path / "small")
        for inputs in task.selection():
            given = {key: each for key, each in inputs.items() if isinstance(each, Tensor)}
            wanted = small(**inputs).logits
            torch.testing.assert_close(back(**given)["logits"], wanted, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(wanted, model(**inputs).logits, atol=1e-4)


def test_a_packed_model_takes_lengths_that_were_not_traced(tmp_path: Path) -> None:
    model, example = pretrained("llama")
    task = Near(model, example)
    store, number = searched(task, tmp_path)
    with store, torch.no_grad():
        small = rs.build_model(store, "s", number, task)
        rs.export_trial(store, "s", number, tmp_path / "small", task=task, dynamic=["input_ids:1"])
        rs.pack_trial(store, "s", number, tmp_path / "small.rsz", task=task, dynamic=["input_ids:1"])
        for path in (tmp_path / "small", tmp_path / "small.rsz"):
            back = rs.load(path)
            for examples, length in ((1, 2), (3, 5), (2, 13), (1, 40)):
                ids = token_ids(examples, length, seed=length)
                torch.testing.assert_close(back(input_ids=ids)["logits"], small(ids).logits, rtol=1e-4, atol=1e-5)


def test_what_no_graph_can_hold_is_said_before_the_first_trial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, example = pretrained("mixtral")
    task = Near(model, example)
    store, number = searched(task, tmp_path)
    assert "it uses transformers::grouped_mm_fallback, which cannot be written as data" in caplog.text
    with store, pytest.raises(ExportError, match="grouped_mm_fallback"):
        rs.export_trial(store, "s", number, tmp_path / "small", task=task)
