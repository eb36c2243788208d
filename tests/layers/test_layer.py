"""A layer's geometry, read off a module, gives the module's own operation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rank_search.errors import LayerError
from rank_search.layers import Layer

MODES = ["zeros", "reflect", "replicate", "circular"]

# PyTorch's own "same" warns about the copy that uneven padding costs it.
uneven = pytest.mark.filterwarnings("ignore:Using padding='same'")


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def assert_same_operation(module: nn.Conv2d | nn.Linear, x: torch.Tensor) -> None:
    found = Layer.of(module).operate(x, module.weight, module.bias)
    torch.testing.assert_close(found, module(x), rtol=1e-12, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    kernel=pairs(1, 4),
    stride=pairs(1, 3),
    padding=pairs(0, 3),
    dilation=pairs(1, 3),
    mode=st.sampled_from(MODES),
    bias=st.booleans(),
)
def test_any_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mode: str,
    bias: bool,
) -> None:
    module = nn.Conv2d(3, 4, kernel, stride, padding, dilation, bias=bias, padding_mode=mode, dtype=torch.float64)
    assert_same_operation(module, torch.randn(2, 3, 11, 12, dtype=torch.float64))


@uneven
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", [3, 2, (4, 3), (1, 2)])
@pytest.mark.parametrize("dilation", [1, (2, 1), (3, 2)])
def test_padding_same(mode: str, kernel: int, dilation: int) -> None:
    module = nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation, padding_mode=mode, dtype=torch.float64)
    x = torch.randn(2, 2, 9, 10, dtype=torch.float64)
    assert_same_operation(module, x)
    assert module(x).shape[2:] == x.shape[2:]


def test_padding_valid_and_linear_and_channels_last() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    valid = nn.Conv2d(3, 4, 3, padding="valid", dtype=torch.float64)
    assert Layer.of(valid).padding == ((0, 0), (0, 0))
    assert_same_operation(valid, x)
    assert_same_operation(valid.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last))
    assert_same_operation(nn.Linear(6, 4, bias=False, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64))


def test_geometry_is_read_off() -> None:
    module = nn.Conv2d(5, 7, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1), bias=False)
    layer = Layer.of(module, name="stem", aliases=("again",))
    assert (layer.name, layer.aliases, layer.kind) == ("stem", ("again",), "conv2d")
    assert (layer.shape, layer.out_features, layer.in_features) == ((7, 5, 2, 3), 7, 5)
    assert (layer.kernel, layer.stride, layer.dilation) == ((2, 3), (1, 2), (2, 1))
    assert (layer.padding, layer.bias, layer.dtype) == (((0, 0), (1, 1)), False, torch.float32)
    assert hash(layer) == hash(Layer.of(module, name="stem", aliases=("again",)))


def test_text_of_a_layer_says_what_it_always_said_and_groups_where_there_are_any() -> None:
    plain = Layer.of(nn.Conv2d(4, 6, 3), name="stem")
    assert str(plain) == repr(plain)
    assert str(plain) == (
        "Layer(name='stem', kind='conv2d', shape=(6, 4, 3, 3), bias=True, stride=(1, 1), padding=((0, 0), (0, 0)), "
        "padding_mode='zeros', dilation=(1, 1), inputs=(), aliases=(), dtype=torch.float32)"
    )
    grouped = Layer.of(nn.Conv2d(4, 6, 3, groups=2), name="stem")
    assert str(grouped) == str(plain).replace("(6, 4,", "(6, 2,").removesuffix(")") + ", groups=2)"
    assert (grouped.in_features, grouped.out_features) == (4, 6)


def test_linear_geometry() -> None:
    layer = Layer.of(nn.Linear(5, 7, dtype=torch.float64), name="head")
    assert (layer.kind, layer.shape, layer.kernel) == ("linear", (7, 5), (1, 1))
    assert (layer.bias, layer.dtype) == (True, torch.float64)


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_mix_acts_on_channels_at_every_position(kind: str) -> None:
    matrix, bias = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    expected = torch.einsum("oi,nihw->nohw", matrix, x) + bias[:, None, None]
    if kind == "linear":
        x, expected = x.movedim(1, -1), expected.movedim(1, -1)
    layer = Layer("x", kind, (4, 3) if kind == "linear" else (4, 3, 3, 3))  # type: ignore[arg-type]
    torch.testing.assert_close(layer.mix(x, matrix, bias), expected)


@pytest.mark.parametrize("mode", MODES)
def test_rows_then_columns_is_the_whole_for_a_separable_kernel(mode: str) -> None:
    layer = Layer(
        "x",
        "conv2d",
        (1, 1, 3, 2),
        stride=(2, 3),
        padding=((1, 2), (0, 1)),
        padding_mode=mode,
        dilation=(2, 3),
    )
    rows, columns = torch.randn(3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    x = torch.randn(2, 1, 9, 10, dtype=torch.float64)
    whole = layer.operate(x, torch.outer(rows, columns)[None, None])
    first = layer.along_rows().operate(x, rows.view(1, 1, 3, 1))
    torch.testing.assert_close(layer.along_columns().operate(first, columns.view(1, 1, 1, 2)), whole)


def test_depthwise_operation() -> None:
    layer = Layer("x", "conv2d", (8, 6, 3, 3), padding=((1, 1), (1, 1)), stride=(2, 1))
    filters, x = torch.randn(5, 1, 3, 3), torch.randn(2, 5, 7, 7)
    expected = F.conv2d(x, filters, stride=(2, 1), padding=1, groups=5)
    torch.testing.assert_close(layer.operate(x, filters, groups=5), expected)


@pytest.mark.parametrize("module", [nn.Bilinear(4, 4, 3), nn.ConvTranspose2d(4, 4, 3, groups=2), nn.ReLU()])
def test_other_modules_are_refused_by_name(module: nn.Module) -> None:
    with pytest.raises(LayerError, match=rf"'body\.0' is {type(module).__name__}"):
        Layer.of(module, name="body.0")
