"""Fused projections as one layer, or cut into their parts as a study asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import LayerError
from rank_search.layers import (
    DirectBases,
    LayersSettings,
    Opened,
    factorize,
    load_plugin,
    opened_inventory,
    recompose,
    weight_of,
)
from rank_search.layers.costs import count_macs
from rank_search.layers.parts import Parts
from rank_search.point import Choice, Point
from rank_search.testing.opened_laws import OPENED_LAWS, broken
from tests.layers.conv1d import Conv1D

SVD = {"svd": load_plugin("svd")}
WIDTH = 12
X = torch.randn(16, 5, WIDTH, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Attention with queries, keys and values from one layer."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.qkv, self.out = fused, nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split((WIDTH, 6, 6), -1)
        k, v = (torch.cat([each, each], -1) for each in (k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])  # type: ignore[no-any-return]


def block(transposed: bool = False, bias: bool = True) -> Block:
    torch.manual_seed(0)
    return Block(Conv1D(24, WIDTH) if transposed else nn.Linear(WIDTH, 24, bias=bias)).eval()


RULE = "qkv:2+1+1"
NAMES = [f"qkv.{number}of2+1+1" for number in (1, 2, 3)]


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    "model", [block(), block(bias=False), block(transposed=True)], ids=["linear", "no bias", "gpt-2"]
)
def test_each_part_is_a_layer_with_its_rows_of_the_weight(model: Block) -> None:
    found = opened_inventory(model, X, split=[RULE])
    assert list(found.layers) == [*NAMES, "out"]
    assert [found.layers[name].shape for name in NAMES] == [(12, 12), (6, 12), (6, 12)]
    assert found.dense.macs == count_macs(model, [X])
    assert torch.equal(torch.cat([weight_of(model, name) for name in NAMES]), weight_of(model, "qkv"))
    whole = opened_inventory(model, X)
    assert list(whole.layers) == ["qkv", "out"]
    assert whole.rest == found.rest


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_cut_where_a_part_is_factorized_and_put_together_again(transposed: bool) -> None:
    model = block(transposed)
    found = opened_inventory(model, X, split=[RULE]).layers
    bases = lambda name: DirectBases(weight_of(model, name))  # noqa: E731
    full = factorize(model, Point({NAMES[1]: Choice("svd", {"rank": 6})}), found, SVD, bases)
    assert [isinstance(each, nn.Linear) for each in full.qkv.children()] == [True, False, True]  # type: ignore[union-attr]
    torch.testing.assert_close(full(X), model(X), rtol=1e-4, atol=1e-5)
    low = factorize(model, Point({NAMES[1]: Choice("svd", {"rank": 2})}), found, SVD, bases)
    again = recompose(low, model, found)
    assert type(again.qkv) is type(model.qkv)
    torch.testing.assert_close(again(X), low(X), rtol=1e-4, atol=1e-5)
    kept = (again.get_submodule("qkv").get_parameter("bias"), model.qkv.get_parameter("bias"))
    assert torch.equal(*kept)
    assert not any(isinstance(each, Opened) for each in factorize(model, Point({}), found, SVD, bases).modules())


@pytest.mark.parametrize("law", [law for law in OPENED_LAWS if law != "Known"])
def test_the_laws_of_what_is_opened_hold(law: str) -> None:
    def cut(module: nn.Module) -> Parts:
        return Parts(module, "3")

    assert broken(law, cut, nn.Linear(6, 9), torch.zeros(2, 6)) == []  # type: ignore[arg-type]


class Functional(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.linear(x, self.qkv.weight[:WIDTH]))  # type: ignore[no-any-return,index]


class Tied(Block):
    def __init__(self, fused: nn.Module) -> None:
        super().__init__(fused)
        self.again = nn.Linear(WIDTH, 24)
        self.again.weight = self.qkv.weight


def hooked() -> Block:
    model = block()
    model.qkv.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("model", "rule", "words"),
    [
        (block(), "nothing:3", r"'nothing:3' in \[layers\] split matches none of: qkv, out"),
        (block(), "qkv:5", "24 outputs cannot be cut into 5: 5 must divide them"),
        (block(), "qkv:1", "and be more than 1"),
        (hooked(), "qkv:3", "qkv cannot be cut into parts: it has hooks"),
        (Functional(nn.Linear(WIDTH, 24)), "qkv:3", "the model does not run so"),
        (nn.Sequential(nn.Conv2d(3, 6, 1)), "0:3", "of the kind conv2d, which cannot be cut"),
    ],
)
def test_what_cannot_be_cut_is_said(model: nn.Module, rule: str, words: str) -> None:
    example = torch.zeros(1, 3, 4, 4) if isinstance(model, nn.Sequential) else X
    with pytest.raises(LayerError, match=words):
        opened_inventory(model.eval(), example, split=[rule])


def test_parts_of_a_tied_weight_are_left_alone() -> None:
    found = opened_inventory(Tied(nn.Linear(WIDTH, 24)).eval(), X, split=[RULE])
    assert list(found.layers) == ["out"]
    assert all("is tied to again.weight" in each.reason for each in found.skipped if each.name in NAMES)


def test_the_last_rule_decides_and_an_exclude_rule_keeps_it_whole() -> None:
    assert list(opened_inventory(block(), X, split=["*:2", RULE]).layers) == [*NAMES, "out.1of2", "out.2of2"]
    found = opened_inventory(block(), X, exclude=["qkv"], split=["*:2"])
    assert list(found.layers) == ["out.1of2", "out.2of2"]
    assert [each.name for each in found.skipped] == ["qkv"]


@pytest.mark.parametrize("rule", ["qkv", "qkv:", "qkv:0", ":3", "qkv:3+", "qkv:a"])
def test_a_rule_has_a_glob_and_parts(rule: str) -> None:
    with pytest.raises(ValidationError, match="split"):
        LayersSettings.model_validate({"split": [rule]})


def test_parts_are_searched_and_exported(tmp_path: Path) -> None:
    model = block()
    batch = (X, model(X).argmax(1))
    found = rs.compress(
        model,
        train=[batch],
        selection=[batch],
        store=tmp_path / "s.sqlite",
        trials=4,
        layers={"split": [RULE]},
        training={"epochs": 0},
        search={"objectives": ["error", "params"]},
    )
    least = min(found.front, key=lambda trial: trial.measurements["params"])
    assert set(NAMES) < set(least.point.layers)
    small = found.model(least.number)
    assert isinstance(small.qkv, Parts)
    found.export(least.number, tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(rs.load(tmp_path / "out")(X[:1]), small(X[:1]))
