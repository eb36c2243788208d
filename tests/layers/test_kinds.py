"""Kinds of layers: the laws of each, how they are found, and that the laws find what is wrong."""

from __future__ import annotations

import pytest
import torch
from rank_search_plugins.convolution import Conv2dKind
from rank_search_plugins.linear import LinearKind
from torch import Tensor, nn

from rank_search.errors import BrokenPluginError, ContractError, LayerError
from rank_search.layers import Layer, LayerKind, layer_kinds, weight_of
from rank_search.layers.kinds import kind_named
from rank_search.testing import LayerKindLaws
from rank_search.testing.kind_laws import LAYER_KIND_LAWS, violations

X = torch.zeros(2, 4, 9, 8)


class TestLinear(LayerKindLaws):
    kind = LinearKind
    samples = (
        (nn.Linear(6, 4), torch.zeros(3, 6)),
        (nn.Linear(4, 7, bias=False), torch.zeros(2, 5, 4)),
    )


class TestConv2d(LayerKindLaws):
    kind = Conv2dKind
    samples = (
        (nn.Conv2d(4, 6, 3), X),
        (nn.Conv2d(4, 6, (3, 2), (2, 3), (2, 1), (2, 1), bias=False), X),
        (nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), X),
        (nn.Conv2d(4, 6, 1, stride=2), X),
        (nn.Conv2d(4, 6, (1, 5), padding=(0, 2), padding_mode="circular"), X),
    )


def test_installed_kinds_are_of_entry_points_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"linear", "conv2d"} <= layer_kinds().keys()
    layer_kinds.cache_clear()
    monkeypatch.setattr("rank_search.layers.kinds.entry_points", lambda group: [])
    try:
        with pytest.raises(LayerError, match=r"kind of layer 'linear' is installed; there are: none\. .*again"):
            kind_named("linear")
        with pytest.raises(LayerError, match="is Linear; only"):
            Layer.of(nn.Linear(2, 2))
    finally:
        layer_kinds.cache_clear()


class _Entry:
    name, value = "strange", "strange:Kind"

    def __init__(self, found: object) -> None:
        self.found = found

    def load(self) -> object:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (ImportError("no such thing"), BrokenPluginError, "does not load: ImportError: no such thing"),
        (nn.Linear, ContractError, "a kind is a subclass of"),
        (LayerKind, ContractError, "defines all of its abstract methods"),
    ],
)
def test_a_kind_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, found: object, error: type[Exception], words: str
) -> None:
    layer_kinds.cache_clear()
    monkeypatch.setattr("rank_search.layers.kinds.entry_points", lambda group: [_Entry(found)])
    try:
        with pytest.raises(error, match=words):
            layer_kinds()
    finally:
        layer_kinds.cache_clear()


def test_weights_of_layers_are_out_by_in() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.ReLU())
    assert weight_of(model, "0").shape == (3, 5)
    assert not weight_of(model, "0").requires_grad
    with pytest.raises(LayerError, match="ReLU is of no kind"):
        weight_of(model, "1")


# ---- what is wrong is found -----------------------------------------------------------------------------


class _Doubled(LinearKind):
    def operate(self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return super().operate(layer, x, 2 * weight, bias, groups)


class _Copied(LinearKind):
    def weight(self, module: nn.Module) -> Tensor:
        return module.get_parameter("weight").clone()


class _MixedTwice(LinearKind):
    def mix(self, layer: Layer, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        return super().mix(layer, x, 2 * matrix, bias)


class _ShiftedColumns(LinearKind):
    def columns(self, layer: Layer, x: Tensor, most: int) -> Tensor:
        return super().columns(layer, x, most).roll(1, 1)


@pytest.mark.parametrize(
    ("kind", "law"),
    [(_Doubled, "Operation"), (_Copied, "Written"), (_MixedTwice, "Mixed"), (_ShiftedColumns, "Multiplied")],
)
def test_each_law_finds_what_breaks_it(monkeypatch: pytest.MonkeyPatch, kind: type[LayerKind], law: str) -> None:
    layer_kinds.cache_clear()
    monkeypatch.setattr("rank_search.layers.kinds.entry_points", lambda group: [_Entry(kind)])
    try:
        broken = [law for law in LAYER_KIND_LAWS if violations(law, kind, nn.Linear(4, 3), torch.zeros(2, 4))]
    finally:
        layer_kinds.cache_clear()
    assert law in broken
    assert "Found" not in broken


def test_a_kind_that_is_not_installed_breaks_the_first_law() -> None:
    assert violations("Found", _Doubled, nn.Linear(4, 3), torch.zeros(2, 4))
