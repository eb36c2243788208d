"""Building the space, and keeping it as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from rank_search.errors import LayerError
from rank_search.layers import Layer
from rank_search.options import CostModel
from rank_search.search import SearchSettings, Space

Make = Callable[..., tuple[Space, CostModel, SearchSettings]]


def test_a_space_survives_json(make: Make) -> None:
    space, _, _ = make(
        ("tucker2", "svd"),
        groups={"trunk": ["neck", "body"], "head": ["head"], "stem": ["stem"]},
        weakening=(0.1, 1.9),
        round_to=8,
        entropy={"low": 1e-5, "high": 1e-1},
        orthogonality=0.25,
    )
    text = json.dumps(space.to_json(), sort_keys=True)
    back = Space.from_json(json.loads(text))
    assert back == space
    assert [group.factorizations for group in back.groups] == [group.factorizations for group in space.groups]
    assert [group.layers for group in back.groups] == [group.layers for group in space.groups]


def test_only_factorizations_that_apply_are_choices(make: Make) -> None:
    space, _, _ = make(("tucker2", "svd"))
    assert {group.name: group.choices for group in space.groups} == {
        "stem": ("tucker2", "svd", "dense"),
        "body": ("tucker2", "svd", "dense"),
        "neck": ("tucker2", "svd", "dense"),
        "head": ("svd", "dense"),
    }


def test_choices_restrict_and_order_the_factorizations(make: Make) -> None:
    allowed = {"stem": (), "body": ("svd", "tucker2"), "neck": ("tucker2",), "head": ("svd",)}
    space, _, _ = make(choices=allowed)
    assert {group.name: group.factorizations for group in space.groups} == {
        name: names for name, names in allowed.items() if names
    }


def test_a_second_multiplier_only_where_there_is_a_second_axis(make: Make) -> None:
    space, _, _ = make(("svd", "tucker2"))
    assert [len(group.multipliers) for group in space.groups] == [2, 2, 2, 1]
    space, _, _ = make(("svd",))
    assert [len(group.multipliers) for group in space.groups] == [1, 1, 1, 1]


def test_tied_layers_choose_among_what_all_of_them_support(make: Make) -> None:
    space, _, _ = make(groups={"mixed": ["neck", "head"], "stem": ["stem"], "body": ["body"]})
    assert space.groups[0].choices == ("svd", "dense")
    assert space.groups[0].layers == ("neck", "head")


def test_a_layer_that_nothing_applies_to_is_left_out(make: Make) -> None:
    space, costs, _ = make(("tucker2",))
    assert [group.name for group in space.groups] == ["stem", "body", "neck"]
    assert costs.dense["params"] > 40 * 64


def test_impossible_spaces_say_why(make: Make) -> None:
    with pytest.raises(LayerError, match=r"No factorization .* all of the tied layers neck, head"):
        make(("tucker2",), groups={"mixed": ["neck", "head"], "stem": ["stem"]})
    head = {"head": Layer("head", "linear", (40, 64), inputs=((1, 64),))}
    with pytest.raises(LayerError, match=r"None of the 1 layers .* tucker2 is not allowed"):
        make(("tucker2",), layers=head)
