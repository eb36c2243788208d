"""Kinds of layers: the laws of each, how they are found, and that the laws find what is wrong."""

from __future__ import annotations

import sys

import pytest
import torch
from rank_search_plugins.convolution import (
    Conv1dKind,
    Conv2dKind,
    Conv3dKind,
    ConvTranspose1dKind,
    ConvTranspose2dKind,
    ConvTranspose3dKind,
)
from rank_search_plugins.embedding import EmbeddingKind
from rank_search_plugins.linear import LinearKind, TransformersConv1dKind
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import BrokenPluginError, ContractError, LayerError
from rank_search.layers import Layer, LayerKind, count_params, layer_kinds, recompose, take_inventory, weight_of
from rank_search.layers.kinds import kind_named
from rank_search.testing import LayerKindLaws
from rank_search.testing.kind_laws import LAYER_KIND_LAWS, violations
from tests.layers.conv1d import Conv1D
from tests.made_up_entry import MadeUpEntry

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
        (nn.Conv2d(4, 6, 3, groups=2), X),
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2), stride=2, groups=4, bias=False), X),
        (nn.Conv2d(4, 6, (1, 5), padding=(0, 2), padding_mode="circular"), X),
    )


class TestConv1d(LayerKindLaws):
    kind = Conv1dKind
    samples = (
        (nn.Conv1d(4, 6, 3, padding=1), torch.zeros(2, 4, 9)),
        (nn.Conv1d(4, 6, 4, 3, 2, 2, bias=False), torch.zeros(2, 4, 9)),
        (nn.Conv1d(4, 6, 4, padding="same", padding_mode="reflect"), torch.zeros(2, 4, 9)),
        (nn.Conv1d(4, 6, 1, stride=2), torch.zeros(1, 4, 9)),
        (nn.Conv1d(4, 8, 3, padding=1, groups=4), torch.zeros(2, 4, 9)),
    )


class TestConv3d(LayerKindLaws):
    kind = Conv3dKind
    samples = (
        (nn.Conv3d(4, 6, 3, padding=1), torch.zeros(2, 4, 5, 6, 4)),
        (nn.Conv3d(4, 6, (3, 1, 2), (2, 1, 3), (2, 0, 1), (2, 1, 1), bias=False), torch.zeros(2, 4, 5, 6, 4)),
        (nn.Conv3d(4, 6, (2, 3, 4), padding="same", padding_mode="replicate"), torch.zeros(1, 4, 5, 6, 4)),
        (nn.Conv3d(4, 6, 1, stride=2), torch.zeros(2, 4, 5, 6, 4)),
        (nn.Conv3d(4, 6, 2, groups=2), torch.zeros(2, 4, 5, 6, 4)),
    )


class TestConvTranspose1d(LayerKindLaws):
    kind = ConvTranspose1dKind
    samples = (
        (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), torch.zeros(2, 4, 5)),
        (nn.ConvTranspose1d(4, 2, 2, 3, bias=False), torch.zeros(1, 4, 5)),
    )


class TestConvTranspose2d(LayerKindLaws):
    kind = ConvTranspose2dKind
    samples = (
        (nn.ConvTranspose2d(4, 6, 2, stride=2), torch.zeros(2, 4, 5, 4)),
        (
            nn.ConvTranspose2d(6, 4, (4, 3), (3, 2), (2, 1), (1, 0), bias=False, dilation=(1, 2)),
            torch.zeros(2, 6, 5, 4),
        ),
        (nn.ConvTranspose2d(4, 6, 3, padding=2), torch.zeros(2, 4, 7, 6)),
        (nn.ConvTranspose2d(4, 6, 1, 2, 1, 1), torch.zeros(1, 4, 5, 4)),
        (nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4), torch.zeros(1, 4, 5, 4)),
        (nn.ConvTranspose2d(3, 6, (2, 3), 2, bias=False, groups=3), torch.zeros(2, 3, 5, 4)),
    )


class TestConvTranspose3d(LayerKindLaws):
    kind = ConvTranspose3dKind
    samples = (
        (nn.ConvTranspose3d(4, 3, (2, 3, 1), (2, 1, 2), (0, 1, 0), (1, 0, 1)), torch.zeros(2, 4, 3, 2, 4)),
        (nn.ConvTranspose3d(2, 3, 2, 2), torch.zeros(1, 2, 3, 2, 3)),
    )


@pytest.mark.usefixtures("imported")
class TestTransformersConv1d(LayerKindLaws):
    kind = TransformersConv1dKind
    samples = ((Conv1D(6, 4), torch.zeros(3, 4)), (Conv1D(3, 5), torch.zeros(2, 4, 5)))


class TestEmbedding(LayerKindLaws):
    kind = EmbeddingKind
    samples = (
        (nn.Embedding(9, 4), torch.zeros(2, 5)),
        (nn.Embedding(3, 6, padding_idx=1), torch.zeros(7)),
    )


def block() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Conv1D(24, 12), nn.ReLU(), Conv1D(12, 24), nn.Linear(12, 3)).eval()


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 5, 12, generator=generator) for _ in range(3)]


@pytest.mark.usefixtures("imported")
def test_a_transposed_weight_is_fitted_to_its_outputs_and_put_together_again() -> None:
    model, data = block(), batches()
    table = rs.options(model, data, example=data[0][:1])
    choice = rs.allocate(table, params=0.6)
    made = rs.factorize(model, choice, table)
    assert isinstance(made.get_submodule("0"), rs.Factorization)
    dense = [nn.Linear(12, 24), nn.Linear(24, 12)]
    for linear, conv in zip(dense, (model[0], model[2]), strict=True):
        linear.weight.data.copy_(conv.weight.T)  # type: ignore[union-attr,operator]
        linear.bias.data.copy_(conv.bias)  # type: ignore[arg-type]
    twin = nn.Sequential(dense[0], nn.ReLU(), dense[1], model[3]).eval()
    same = rs.options(twin, data, example=data[0][:1])
    expected = rs.factorize(twin, rs.allocate(same, params=0.6), same)
    with torch.no_grad():
        torch.testing.assert_close(made(data[0]), expected(data[0]), rtol=1e-4, atol=1e-5)
    again = recompose(made, model, take_inventory(model, data[0]).layers)
    assert type(again.get_submodule("0")) is Conv1D
    with torch.no_grad():
        torch.testing.assert_close(again(data[0]), made(data[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("imported")
def test_a_model_of_transposed_weights_is_packed() -> None:
    model, data = block(), batches()
    packed = rs.pack_model(model, data, example=data[0][:1])
    assert [row.name for row in packed.layers] == ["0", "2", "3"]
    assert packed.model[0].weight.shape == model[0].weight.shape  # type: ignore[index,union-attr]
    with torch.no_grad():
        wanted, found = model(data[0]), packed.model(data[0])
    assert 0 < float((found - wanted).square().mean()) < 0.1 * float(wanted.square().mean())


def test_what_is_not_imported_has_no_layers() -> None:
    if "transformers.pytorch_utils" not in sys.modules:
        assert "Conv1D is not supported" in take_inventory(block(), batches()[0]).skipped[0].reason


# ---- subclasses ------------------------------------------------------------------------------------------


class Initialized(nn.Linear):
    """Changes nothing but how it is made."""

    def __init__(self, entering: int, out: int) -> None:
        super().__init__(entering, out)
        nn.init.zeros_(self.bias)

    def twice(self, x: Tensor) -> Tensor:
        return 2 * self(x)  # type: ignore[no-any-return]


class Doubling(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Standardized(nn.Conv2d):
    """Its forward is the parent's, which calls this."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class OfDoubling(Doubling):
    """As its parent, which is no layer."""


def test_a_subclass_is_a_layer_if_it_changes_nothing() -> None:
    model = nn.Sequential(Initialized(4, 4), Doubling(4, 4), OfDoubling(4, 4))
    inventory = take_inventory(model, torch.zeros(2, 4))
    assert list(inventory.layers) == ["0"]
    assert inventory.layers["0"].kind == "linear"
    assert [each.name for each in inventory.skipped] == ["1", "2"]
    assert all("changes what it inherits" in each.reason for each in inventory.skipped)
    assert count_params(model) == count_params(model[0]) + sum(each.params for each in inventory.skipped)
    convolution = take_inventory(nn.Sequential(Standardized(2, 2, 3)), torch.zeros(1, 2, 5, 5))
    assert not convolution.layers
    assert "changes what it inherits" in convolution.skipped[0].reason


def test_installed_kinds_are_of_entry_points_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"linear", "conv1d", "conv2d", "conv3d", "transformers-conv1d"} <= layer_kinds().keys()
    layer_kinds.cache_clear()
    monkeypatch.setattr("rank_search.layers.kinds.entries_of", lambda group: {})
    try:
        with pytest.raises(LayerError, match=r"kind of layer 'linear' is installed; there are: none\. .*again"):
            kind_named("linear")
        with pytest.raises(LayerError, match="is Linear; only"):
            Layer.of(nn.Linear(2, 2))
    finally:
        layer_kinds.cache_clear()


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (ImportError("no such thing"), BrokenPluginError, "does not load: ImportError: no such thing"),
        (nn.Linear, ContractError, "must be a subclass of rank_search.layers.LayerKind"),
        (LayerKind, ContractError, "defines all of its abstract methods"),
    ],
)
def test_a_kind_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, found: object, error: type[Exception], words: str
) -> None:
    layer_kinds.cache_clear()
    monkeypatch.setattr("rank_search.layers.kinds.entries_of", lambda group: {"strange": MadeUpEntry("strange", found)})
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
    monkeypatch.setattr("rank_search.layers.kinds.entries_of", lambda group: {"strange": MadeUpEntry("strange", kind)})
    try:
        broken = [law for law in LAYER_KIND_LAWS if violations(law, kind, nn.Linear(4, 3), torch.zeros(2, 4))]
    finally:
        layer_kinds.cache_clear()
    assert law in broken
    assert "Found" not in broken


def test_a_kind_that_is_not_installed_breaks_the_first_law() -> None:
    assert violations("Found", _Doubled, nn.Linear(4, 3), torch.zeros(2, 4))
