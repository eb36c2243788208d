"""Counted costs are the closed forms; nothing is allocated to count them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rank_search.layers import Cost, Layer, count_params, layer_cost, load_plugin
from rank_search.layers.costs import count_macs
from rank_search.point import Choice

# in 6 → out 8, 3×5, stride (2, 1), padding (1, 2): 9×10 pixels in, 5×10 pixels out
LAYER = Layer(
    "body",
    "conv2d",
    (8, 6, 3, 5),
    stride=(2, 1),
    padding=((1, 1), (2, 2)),
    inputs=((1, 6, 9, 10),),
)
PIXELS_IN, PIXELS_BETWEEN, PIXELS_OUT = 9 * 10, 5 * 10, 5 * 10


def cost(name: str, **values: int) -> Cost:
    return layer_cost(LAYER, load_plugin(name), Choice(name, values))


def test_dense_convolution() -> None:
    size = 8 * 6 * 15
    assert layer_cost(LAYER, None, Choice()) == Cost(size + 8, size * PIXELS_OUT)


def test_svd() -> None:
    assert cost("svd", rank=3) == Cost(3 * (90 + 8) + 8, 3 * (90 + 8) * PIXELS_OUT)


def test_svd_spatial() -> None:
    rows, columns = 3 * 6 * 3, 3 * 8 * 5
    assert cost("svd-spatial", rank=3) == Cost(rows + columns + 8, rows * PIXELS_BETWEEN + columns * PIXELS_OUT)


def test_tucker2() -> None:
    inner, core, outer = 6 * 2, 3 * 2 * 15, 8 * 3
    macs = inner * PIXELS_IN + (core + outer) * PIXELS_OUT
    assert cost("tucker2", rank_out=3, rank_in=2) == Cost(inner + core + outer + 8, macs)


def test_cp() -> None:
    inner, space, outer = 6 * 4, 15 * 4, 8 * 4
    macs = inner * PIXELS_IN + (space + outer) * PIXELS_OUT
    assert cost("cp", rank=4) == Cost(inner + space + outer + 8, macs)


def test_filter_basis() -> None:
    filters, mixing = 4 * 15, 8 * 6 * 4
    assert cost("filter-basis", rank=4) == Cost(filters + mixing + 8, (6 * filters + mixing) * PIXELS_OUT)


def test_linear_and_several_inputs() -> None:
    layer = Layer("head", "linear", (5, 12), bias=False, inputs=((4, 12), (2, 3, 12)))
    assert layer_cost(layer, None, Choice()) == Cost(60, 60 * (4 + 6))
    svd = layer_cost(layer, load_plugin("svd"), Choice("svd", {"rank": 2}))
    assert svd == Cost(2 * 17, 2 * 17 * 10)


def test_uneven_padding_costs_what_the_output_costs() -> None:
    layer = Layer("x", "conv2d", (4, 4, 2, 2), padding=((0, 1), (0, 1)), inputs=((1, 4, 6, 6),))
    assert layer_cost(layer, None, Choice()).macs == 4 * 4 * 4 * 36


def test_a_layer_too_large_for_any_memory_is_counted() -> None:
    layer = Layer("huge", "linear", (10**6, 10**6), bias=False, inputs=((1, 10**6),))
    assert layer_cost(layer, None, Choice()) == Cost(10**12, 10**12)
    assert layer_cost(layer, load_plugin("svd"), Choice("svd", {"rank": 10})).params == 2 * 10**7


def test_costs_add_and_subtract() -> None:
    assert Cost(3, 10) + Cost(1, 5) - Cost(2, 2) == Cost(2, 13)


def test_macs_of_a_model_count_every_use_and_params_every_tensor_once() -> None:
    shared = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert count_macs(model, [torch.randn(3, 4), torch.randn(1, 4)]) == 2 * 16 * (3 + 1)
    assert count_params(model) == 16


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_macs_of_grouped_convolutions(groups: int) -> None:
    module = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    assert count_macs(module, [torch.randn(1, 4, 5, 5)]) == 8 * (4 // groups) * 9 * 25
