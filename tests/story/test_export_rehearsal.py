"""What could not be exported is said before the first trial, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import ExportError
from rank_search.export import say_if_unexportable
from rank_search.export.tracing import trace
from tests.story.test_sizes import searched

torch.library.define("rank_search_tests::twice", "(Tensor x) -> Tensor")
torch.library.impl("rank_search_tests::twice", "cpu", lambda x: x * 2)
torch.library.impl("rank_search_tests::twice", "meta", lambda x: x * 2)


class Step(nn.Module):
    def __init__(self, step: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.step = nn.Linear(8, 16), nn.Linear(16, 4), step

    def forward(self, x: Tensor, scale: float = 1.0) -> Any:
        return self.step(self.b(torch.relu(self.a(x * scale))))


class Task(rs.Task):
    def __init__(self, network: nn.Module, **more: Any) -> None:
        self.network, self.more = network.eval(), more

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Any:
        return torch.ones(1, 8)

    def training(self) -> list[Tensor]:
        return [torch.ones(4, 8), torch.zeros(4, 8)]

    selection = test = training

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        found = model(batch, **self.more)
        return (found["y"] if isinstance(found, dict) else found).square().mean()  # type: ignore[no-any-return]

    def evaluate(self, model: nn.Module, batches: Iterable[Tensor]) -> Mapping[str, float]:
        return {"error": float(sum(self.loss(model, batch) for batch in batches))}


def said(task: rs.Task, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    say_if_unexportable(task, task.model())
    return caplog.text


BAD: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "if": (lambda y: y * 2 if y.sum() > 0 else y, "values of a tensor (__bool__ at test_export_rehearsal.py:"),
    "item": (lambda y: y * 2 if y.sum().item() > 0 else y, "values of a tensor (item() at test_export_rehearsal.py:"),
    "int": (lambda y: y[:, : int(y.abs().max()) + 1], "values of a tensor (__int__ at"),
    "operator": (torch.ops.rank_search_tests.twice, "it uses rank_search_tests::twice, which cannot be written"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_exported_is_named(name: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    step, complaint = BAD[name]
    task = Task(Step(step))
    assert complaint in said(task, caplog)
    if name == "operator":
        return
    with pytest.raises(ExportError):
        trace(task.model(), task.example())


@pytest.mark.parametrize(
    "step",
    [
        lambda y: y,
        lambda y: y.masked_fill((y > 0) & (y < 1) | (y > 2) ^ (y > 3), 0.0),
        lambda y: y * y.sum().item(),
        lambda y: F.scaled_dot_product_attention(y[None, None], y[None, None], y[None, None])[0, 0],
        lambda y: y * 2 if not torch.compiler.is_exporting() and y.sum() > 0 else y,
        lambda y: F.layer_norm(y, (4,)).topk(2).values,
    ],
)
def test_nothing_is_said_of_what_can(step: Callable[[Tensor], Any], caplog: pytest.LogCaptureFixture) -> None:
    task = Task(Step(step))
    assert said(task, caplog) == ""
    assert trace(task.model(), task.example()).sizes.names == ("x",)
    assert not torch.compiler.is_exporting()


def test_arguments_are_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    assert said(Task(Step(lambda y: y), scale=2.0), caplog) == ""
    assert "calls the model with a Cache as scale" in said(Task(Step(lambda y: y), scale=Cache()), caplog)
    assert "outputs without cache (Cache)" in said(Task(Step(lambda y: {"y": y, "cache": Cache()})), caplog)


class Cache:
    """No tensor, and of a class that nobody else has."""

    def __rmul__(self, other: Tensor) -> Tensor:
        return other


def test_a_search_goes_on(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    task = Task(Step(BAD["if"][0]))
    _, number = searched(task, tmp_path)
    assert number >= 0
    assert caplog.text.count("its models cannot be exported or packed as they are") == 1


def test_a_large_model_is_not_tried(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rank_search.export.rehearsal.LARGEST", 100)
    assert said(Task(Step(BAD["if"][0])), caplog) == ""
