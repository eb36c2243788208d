"""Seed points: dense, ladders, and the user's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rank_search.errors import StudyFileError
from rank_search.options import CostModel, Option
from rank_search.options.allocation import lagrangian_front
from rank_search.point import Choice
from rank_search.search import SearchSettings, Seed, Space, check_counted, seed_points
from tests.small_space import LADDERS, options_of

Make = Callable[..., tuple[Space, CostModel, SearchSettings]]
NONE: dict[str, Any] = {"dense": False, "fractions": [], "weakenings": []}


def by_label(made: tuple[Space, CostModel, SearchSettings]) -> dict[str, Seed]:
    return {seed.label: seed for seed in seed_points(*made)}


def test_labels_in_order(make: Make) -> None:
    assert list(by_label(make(entropy={"low": 1e-4, "high": 1e-1}, seeds=LADDERS))) == [
        *("dense", "dense entropy"),
        *("fraction 0.75", "fraction 0.5", "fraction 0.35", "fraction 0.25", "fraction 0.15"),
        *("weakening 0.25", "weakening 0.5", "weakening 0.75", "weakening 1"),
        "fraction 0.35 tucker2",
    ]


def test_uniform_fractions_and_weakenings(make: Make) -> None:
    made = make(("svd",), seeds=LADDERS)
    seeds = by_label(made)
    axes = {group.name: group.axes[group.name]["svd"][0] for group in made[0].groups}
    for name, axis in axes.items():
        assert seeds["fraction 0.15"].point.layers[name].values == {"rank": max(1, round(0.15 * axis.high))}
        assert seeds["weakening 1"].point.layers[name].values == {"rank": axis.prior}


def test_what_would_not_save_is_dense(make: Make) -> None:
    made = make(("svd",), seeds=LADDERS)
    space, costs, _ = made
    layers = by_label(made)["fraction 0.75"].point.layers
    for group in space.groups:
        rank = round(0.75 * group.axes[group.name]["svd"][0].high)
        assert layers[group.name].is_dense != costs.saves(group.name, Choice("svd", {"rank": rank}))
    assert layers["stem"].is_dense != layers["neck"].is_dense or layers["head"].is_dense


def test_further_factorizations_get_one_cut_where_they_apply(make: Make) -> None:
    layers = by_label(make(seeds=LADDERS))["fraction 0.35 tucker2"].point.layers
    assert {name: choice.factorization for name, choice in layers.items()} == {
        "stem": "tucker2",
        "body": "tucker2",
        "neck": "tucker2",
        "head": "svd",
    }


def test_penalties_of_seeds(make: Make) -> None:
    seeds = by_label(make(entropy={"low": 1e-4, "high": 1e-2}, orthogonality={"low": 0.01, "high": 1}, seeds=LADDERS))
    assert seeds["dense"].point.penalties == {"orthogonality": 0, "entropy": 0}
    assert seeds["dense entropy"].point.penalties == {"orthogonality": 0, "entropy": 0.001}
    assert seeds["fraction 0.25"].point.penalties == {"orthogonality": 0.1, "entropy": 0.001}
    fixed = by_label(make(entropy=0.02, seeds=LADDERS))
    assert fixed["dense"].point.penalties == {"orthogonality": 0, "entropy": 0.02}
    assert "dense entropy" not in fixed


def test_seeds_have_the_middle_sparsity_or_their_own(make: Make) -> None:
    points = [{"name": name, "layers": {"head": {"factorization": "svd", "rank": 5}}} for name in ("mine", "none")]
    points[0]["sparsity"], points[1]["sparsity"] = 2.0, 0.0
    seeds = {**LADDERS, "points": points}
    found = by_label(make(sparsity={"low": 0.1, "high": 10}, seeds=seeds))
    assert found["dense"].point.penalties == {"orthogonality": 0, "entropy": 0, "sparsity": 0}
    assert found["fraction 0.25"].point.penalties["sparsity"] == 1.0
    assert found["point mine"].point.penalties["sparsity"] == 2.0
    assert found["point none"].point.penalties["sparsity"] == 0.0
    without = by_label(make(seeds={**LADDERS, "points": points[1:]}))
    assert "sparsity" not in without["point none"].point.penalties


def test_equal_points_are_one_seed(make: Make) -> None:
    made = make(("svd",), seeds={"fractions": [1.0, 0.999, 0.5, 0.5], "weakenings": [0, 1]})
    assert list(by_label(made)) == ["dense", "fraction 0.5", "weakening 1"]
    assert len(seed_points(*make(seeds=LADDERS))) <= 16


def test_points_of_the_study_file(make: Make) -> None:
    own = {
        "name": "mine",
        "layers": {
            "body": "dense",
            "he*": {"factorization": "svd", "rank": 5},
            "stem": {"factorization": "tucker2", "rank_out": 4, "rank_in": 2},
        },
        "entropy": 0.003,
    }
    seeds = by_label(make(entropy={"low": 1e-4, "high": 1e-2}, seeds={**NONE, "points": [own]}))
    assert list(seeds) == ["point mine"]
    assert seeds["point mine"].point.to_json() == {
        "layers": {
            "stem": {"factorization": "tucker2", "rank_out": 4, "rank_in": 2},
            "body": "dense",
            "neck": "dense",
            "head": {"factorization": "svd", "rank": 5},
        },
        "penalties": {"orthogonality": 0.0, "entropy": 0.003},
    }


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        ({"layers": {"bdy": "dense"}}, "'bdy' matches none of: stem, body, neck, head"),
        (
            {"layers": {"head": {"factorization": "tucker2", "rank": 3}}},
            "asks for 'tucker2', and may be: svd, dense",
        ),
        ({"layers": {"head": {"factorization": "svd", "rnk": 3}}}, "has the axes rank; found: rnk"),
        ({"layers": {"head": {"factorization": "svd"}}}, "has the axes rank; found: none"),
        ({"layers": {"head": {"factorization": "svd", "rank": 41}}}, "a whole number from 1 to 40; .* it is 41"),
        ({"layers": {"head": {"factorization": "svd", "rank": 2.5}}}, "a whole number from 1 to 40; .* it is 2.5"),
        ({"entropy": 0.5}, r"entropy is off, or 0.0001 to 0.01 \(\[search\] entropy\); .* it is 0.5"),
        ({"orthogonality": 0.5}, r"orthogonality is off .* it is 0.5"),
        ({"sparsity": 0.5}, r"sparsity is off \(\[search\] sparsity\); .* it is 0.5"),
    ],
)
def test_points_that_do_not_fit_say_why(make: Make, own: dict[str, Any], complaint: str) -> None:
    made = make(entropy={"low": 1e-4, "high": 1e-2}, seeds={"points": [{"name": "mine", **own}]})
    with pytest.raises(StudyFileError, match=complaint):
        seed_points(*made)


def allocated(made: tuple[Space, CostModel, SearchSettings]) -> dict[str, Seed]:
    seeds = seed_points(*made, options_of(made))
    assert len({seed.label for seed in seeds}) == len(seeds)
    assert len({seed.point.key for seed in seeds}) == len(seeds)
    return {seed.label: seed for seed in seeds}


def test_allocations_come_after_dense_and_lie_on_the_front(make: Make) -> None:
    made = make(seeds={"allocations": 6, "points": [{"name": "mine"}], "fractions": [0.5]}, entropy=0.01)
    space, costs, _ = made
    seeds, options = allocated(made), options_of(made)
    labels = [label.split()[0] for label in seeds]
    assert labels[0] == "dense"
    assert labels[-2:] == ["fraction", "fraction"]  # the study file's own point is dense
    assert labels[1:-2] == ["allocation"] * (len(labels) - 3)
    assert 4 <= len(labels) - 3 <= 6
    menus = [options.of[group.name] for group in space.groups]
    front = lagrangian_front(
        [[option.macs for option in menu] for menu in menus], [[option.error for option in menu] for menu in menus]
    )
    best = {(each.cost + options.rest["macs"], round(each.error, 9)) for each in front}
    for label, seed in seeds.items():
        if label.startswith("allocation"):
            macs, error = costs.cost(seed.point)["macs"], sum(each.error for each in options.describe(seed.point))
            assert (macs, round(error, 9)) in best
            assert float(label.split()[1]) == pytest.approx(macs / costs.dense["macs"], rel=0.06)
            assert error <= 0.4 * len(menus)
            assert seed.point.penalties["entropy"] == 0.01


def test_the_first_allocations_are_spread_over_all_of_them(make: Make) -> None:
    """A search that is looked at early has been to the middle of the front."""
    made = make(seeds={"allocations": 6})
    costs = [made[1].cost(seed.point)["macs"] for seed in allocated(made).values()][1:]
    assert sorted(costs) != costs != sorted(costs, reverse=True)
    assert min(costs) < costs[0] < max(costs)


@pytest.mark.parametrize("bound", ["macs <= 0.5 * dense", "params <= 0.6 * dense", "macs >= 0.4 * dense"])
def test_allocations_keep_bounds_on_counted_costs(make: Make, bound: str) -> None:
    made = make(constraints=[bound])
    _, costs, settings = made
    found = [seed.point for label, seed in allocated(made).items() if label.startswith("allocation")]
    assert len(found) >= 3
    assert all(check_counted(settings.constraints, costs.cost(point), costs.dense) is None for point in found)


@pytest.mark.parametrize("objectives", [["error"], ["error", "macs"]])
def test_the_first_allocation_is_the_best_within_the_bounds(make: Make, objectives: list[str]) -> None:
    made = make(("svd",), objectives=objectives, constraints=["macs <= 0.5 * dense", "params < 0.7 * dense"])
    options, found = options_of(made), allocated(made)
    first = found["allocation within bounds"].point
    assert list(found)[1] == "allocation within bounds"
    assert (len(found) == 2) == (objectives == ["error"])
    assert len(found) <= 11

    def error(chosen: Iterable[Option]) -> float:
        return sum(option.error for option in chosen)

    kept = [
        error(chosen)
        for chosen in itertools.product(*options.of.values())
        if options.total(chosen)["macs"] <= 0.5 * options.dense["macs"]
        and options.total(chosen)["params"] < 0.7 * options.dense["params"]
    ]
    assert error(options.describe(first)) == pytest.approx(min(kept))


def test_no_allocations_where_none_are_asked_for_or_none_keeps_the_bounds(make: Make) -> None:
    assert list(allocated(make(seeds={"allocations": 0}))) == ["dense"]
    assert list(by_label(make())) == ["dense"]
    assert list(allocated(make(constraints=["macs <= 0.0001 * dense"]))) == ["dense"]
