"""Which slices of factors the components of an axis own."""

from __future__ import annotations

import pytest
import torch

from rank_search.layers import Factorization, Layer, components, load_plugin
from rank_search.layers.components import alive, places_of
from tests.emptied import RefusesOdd, Ring, drawn

CONV = Layer("", "conv2d", (8, 6, 3, 3))


@pytest.mark.parametrize(
    ("plugin", "layer", "values", "axis", "expected"),
    [
        ("svd", CONV, {"rank": 2}, "rank", {"left": (1,), "right": (0,)}),
        ("svd", Layer("", "conv2d", (8, 3, 3, 3), groups=2), {"rank": 2}, "rank", {"left": (1,), "right": (0,)}),
        ("svd-spatial", CONV, {"rank": 2}, "rank", {"down": (0,), "across": (1,)}),
        ("tucker2", CONV, {"rank_out": 2, "rank_in": 3}, "rank_out", {"outer": (1,), "core": (0,)}),
        ("tucker2", CONV, {"rank_out": 2, "rank_in": 3}, "rank_in", {"core": (1,), "inner": (1,)}),
        ("cp", CONV, {"rank": 2}, "rank", {"outer": (1,), "inner": (1,), "space": (1,)}),
    ],
)
def test_components_are_where_a_higher_value_would_add_some(
    plugin: str, layer: Layer, values: dict[str, int], axis: str, expected: dict[str, tuple[int, ...]]
) -> None:
    assert dict(components(load_plugin(plugin)(layer, **values), axis)) == expected


def test_components_have_every_mode_of_a_factor() -> None:
    assert dict(components(Ring(Layer("", "linear", (8, 6)), rank=3), "rank")) == {"one": (0, 2), "other": (0, 2)}


def test_components_are_unknown_where_the_next_value_is_refused() -> None:
    assert dict(components(RefusesOdd(Layer("", "linear", (8, 6)), rank=4), "rank")) == {}


def test_a_component_is_alive_where_none_of_its_slices_is_all_zero() -> None:
    form: Factorization = drawn("cp", CONV, rank=4)
    with torch.no_grad():
        form.get_parameter("inner")[:, 1] = 0
        form.get_parameter("space")[:, 3] = 0
        form.get_parameter("outer")[0] = 0  # a place of all components, not all places of one
    mask = alive(form, "rank")
    assert mask is not None
    assert mask.tolist() == [True, False, True, False]


def test_a_component_of_groups_is_alive_where_one_group_has_some_of_it() -> None:
    form = drawn("svd", Layer("", "conv2d", (8, 3, 3, 3), groups=2), rank=3)
    with torch.no_grad():
        form.get_parameter("right")[[0, 1, 4]] = 0  # component 0 of one group, and 1 of both
    mask = alive(form, "rank")
    assert mask is not None
    assert mask.tolist() == [True, False, True]


def test_places_of_components_are_in_every_block() -> None:
    assert places_of(torch.tensor([1]), value=2, size=6).tolist() == [1, 3, 5]
