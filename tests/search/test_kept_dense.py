"""Seed points of the study file that are not tried as they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rank_search.options import CostModel, Forms
from rank_search.search import SearchSettings, Space, kept_dense

Make = Callable[..., tuple[Space, CostModel, SearchSettings]]


def points(rank: int) -> dict[str, Any]:
    layers = {"head": {"factorization": "svd", "rank": rank}, "body": {"factorization": "svd", "rank": 3}}
    return {"points": [{"name": "mine", "layers": layers}]}


def test_layer_choice_and_cost_are_named(make: Make) -> None:
    (said,) = kept_dense(*make(("svd",), seeds=points(30)))
    assert said.startswith(
        "In seed point 'mine', layer 'head' stays dense: svd rank 30 costs 3,160 params (dense 2,600) and "
        "3,120 macs (dense 2,560)."
    )


def test_what_saves_needs_no_word(make: Make) -> None:
    assert list(kept_dense(*make(("svd",), seeds=points(20)))) == []
    assert list(kept_dense(*make(("svd",)))) == []


def test_a_form_that_is_only_slower_is_named_with_its_time(make: Make) -> None:
    space, costs, settings = make(("svd",), seeds=points(20))
    slow = costs.with_forms(Forms({"head": {"svd": ((1.0, 1.5),)}}))
    (said,) = kept_dense(space, slow, settings)
    assert "svd rank 20 costs 2,120 params (dense 2,600)" in said
    assert "takes 1.50 times as long as the layer" in said
