"""Strangers' models through the whole search: what was a crash is a front, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.layers.costs import count_macs

X = torch.randn(32, 12, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def compressed(model: nn.Module, folder: Path, x: Tensor = X, **tables: Any) -> rs.Compressed:
    with torch.no_grad():
        batch = (x, model.eval()(x).argmax(1))
    tables = {"trials": 4, "training": {"epochs": 0}, **tables}
    return rs.compress(model, train=[batch], selection=[batch], test=[batch], store=folder / "s.sqlite", **tables)


def linear(zero: list[int]) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    return emptied(model, zero)


def convolutional(zero: list[int]) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(288, 4)
    )
    return emptied(model, zero)


def emptied(model: nn.Module, zero: list[int]) -> nn.Module:
    for place in zero:
        nn.init.zeros_(model.get_submodule(str(place)).get_parameter("weight"))
    return model


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (linear([0]), X),
        (linear([0, 2, 4]), X),
        (convolutional([2]), IMAGES),
        (convolutional([0, 2]), IMAGES),
    ],
)
def test_weights_of_zeros_are_searched(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    forms = {"factorizations": ["svd-spatial", "svd", "tucker2", "cp"]}
    found = compressed(model, tmp_path, x, layers=forms, search={"entropy": {"low": 1e-3, "high": 1e-1}})
    best = min(found.front, key=lambda trial: trial.measurements["macs"])
    assert best.measurements["error"] == 0
    assert best.measurements["macs"] < found.dense["macs"]


class WithLoss(nn.Module):
    """Keeps a loss of its own, with its graph, and calls a layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.out, self.loss = nn.Linear(12, 16), nn.Linear(16, 4), torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        self.loss = h.square().mean()
        return self.out(h)  # type: ignore[no-any-return]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_model_that_keeps_a_loss_with_its_graph(epochs: int, tmp_path: Path) -> None:
    model = WithLoss()
    model(X).sum().backward()
    assert not model.loss.is_leaf
    assert compressed(model, tmp_path, training={"epochs": epochs}).front
    assert rs.pack_model(model, [X], example=X[:1]).size


class Listed(nn.Module):
    """Runs its layers from a list."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.out = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 4)
        self.stages = [self.a, nn.ReLU(), self.b, nn.ReLU(), self.out]

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x


def test_what_is_recorded_of_layers_in_a_list_is_what_runs(tmp_path: Path) -> None:
    found = compressed(Listed(), tmp_path, search={"objectives": ["error", "macs"]}, trials=8)
    assert len(found.front) > 1
    for trial in found.front:
        model = found.model(trial.number)
        assert trial.measurements["macs"] == count_macs(model, [X[:1]])
        with torch.no_grad():
            wrong = float((model(X).argmax(1) != Listed().eval()(X).argmax(1)).double().mean())
        assert trial.measurements["error"] == pytest.approx(wrong)


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.Linear(12, 4)).eval())


def exported() -> nn.Module:
    return torch.export.export(nn.Sequential(nn.Linear(12, 4)).eval(), (X,)).module()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (scripted, "no layer to factorize: Linear is scripted"),
        (lambda: nn.Sequential(nn.EmbeddingBag(12, 4)), "no layer to factorize: EmbeddingBag is not supported"),
        (exported, "hand over the module that it was exported from"),
    ],
)
def test_a_model_that_nothing_can_be_done_with_gets_one_sentence(
    make: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    batch = (X, torch.zeros(len(X), dtype=torch.long))
    embedded = (torch.zeros(4, 1, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    model = make()
    used = embedded if "Embedding" in message else batch
    with pytest.raises(rs.RankSearchError, match=message):
        rs.compress(model, train=[used], selection=[used], test=[used], store=tmp_path / "s.sqlite", trials=2)
    assert not (tmp_path / "s.sqlite").exists()


def test_a_name_with_brackets_is_a_rule(tmp_path: Path) -> None:
    model = nn.Sequential()
    for name, layer in (("in[0]", nn.Linear(12, 16)), ("in[1]", nn.Linear(16, 16)), ("out", nn.Linear(16, 4))):
        model.add_module(name, layer)
    seed = {"points": [{"name": "mine", "layers": {"in[1]": {"factorization": "svd", "rank": 2}}}]}
    layers = {"exclude": ["in[0]"]}
    found = compressed(model, tmp_path, layers=layers, search={"seeds": seed})
    assert all("in[0]" not in trial.point.layers for trial in found.front)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float8_e4m3fn])
def test_numbers_that_no_file_holds_are_refused_before_the_first_trial(dtype: torch.dtype, tmp_path: Path) -> None:
    model = linear([])
    model[1].register_buffer("filter", torch.ones(3).to(dtype))
    said = rf"1\.filter is {str(dtype).removeprefix('torch.')}: the files of trials .*torch\.view_as_real"
    with pytest.raises(TaskError, match=said):
        compressed(model, tmp_path)
    model[1].register_buffer("filter", torch.ones(3).to(dtype), persistent=False)
    assert compressed(model, tmp_path).front
