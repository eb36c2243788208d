"""OptionTable as arrays, against the options themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from rank_search.options import OptionArrays, OptionTable
from rank_search.options.allocation import price_of
from rank_search.options.arrays import ABOUT, EVEN
from rank_search.point import Choice, Point
from rank_search.search import Space
from tests.small_space import LAYERS, Made, made_up_error, options_of

Make = Callable[..., Made]


@pytest.fixture
def both(make: Make) -> tuple[Space, OptionTable, OptionArrays]:
    made = make()
    options = options_of(made)
    return made[0], options, OptionArrays(options, [group.name for group in made[0].groups])


Both = tuple[Space, OptionTable, OptionArrays]


def drawn_places(both: Both, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(0, len(both[1].of[group.name]), count) for group in both[0].groups], axis=1)


def test_option_arrays_hold_the_costs_errors_and_kinds_of_the_options(both: Both) -> None:
    _, options, menus = both
    places = drawn_places(both, 20)
    costs = menus.costs(places)
    for row, each in enumerate(places):
        chosen = menus.of(each)
        assert {name: float(costs[name][row]) for name in costs} == options.total(chosen)
        assert menus.take(menus.errors, places)[row].tolist() == [option.error for option in chosen]
        assert menus.take(menus.kinds, places)[row].tolist() == [int(o.factorization == "tucker2") for o in chosen]


def test_solved_allocation_is_the_best_of_all(both: Both) -> None:
    """Every group by itself, by brute force, under weights that differ by group and factorization."""
    space, options, menus = both
    weights = np.random.default_rng(1).uniform(0.1, 3.0, (len(space.groups), 2))
    for shares, price in itertools.product(({"params": 0.3, "macs": 0.7}, EVEN), (0.0, 0.5, 5.0, 500.0)):
        found = menus.solved(weights, price, menus.share(shares))
        for place, group, counts in zip(found, space.groups, weights, strict=True):
            menu = options.of[group.name]
            values = [
                counts[int(option.factorization == "tucker2")] * option.error
                + price * price_of(option, shares, options.dense)
                for option in menu
            ]
            assert place < len(menu)
            assert values[place] == pytest.approx(min(values))


def test_allocations_change_at_the_prices_and_nowhere_between(both: Both) -> None:
    space, _, menus = both
    share, prices = menus.share(EVEN), menus.prices(EVEN)
    assert (np.diff(prices) >= 0).all()
    assert prices[0] == 0
    weights = np.ones((len(space.groups), 2))
    distinct = np.unique(np.round(prices[1:], 9))  # prices that differ by rounding are one
    middles = [*(distinct[:-1] + distinct[1:]) / 2, distinct[-1] * 2]
    allocations = [menus.solved(weights, price, share) for price in middles]
    costs = [float(menus.take(share, each).sum()) for each in allocations]
    assert all(before > after for before, after in itertools.pairwise(costs))
    for low, high, places in zip(distinct[:-1], distinct[1:], allocations[:-1], strict=True):
        width = high - low
        if width > 1e-9 * high:
            for price in (low + 0.05 * width, high - 0.05 * width):
                assert menus.solved(weights, price, share).tolist() == places.tolist()


def test_nearest_option_of_a_listed_one_is_itself(both: Both) -> None:
    _, _, menus = both
    for places in drawn_places(both, 20):
        nearest = menus.nearest(menus.of(places))
        for mine, found in zip(menus.of(places), menus.of(nearest), strict=True):
            assert (mine.params, mine.macs, mine.error) == (found.params, found.macs, found.error)


def test_nearest_option_of_an_unlisted_one_is_close(both: Both) -> None:
    _, options, menus = both
    described = options.describe(Point({"head": Choice("svd", {"rank": 13})}))
    head = menus.of(menus.nearest(described))[-1]
    assert abs(head.choices["head"].values["rank"] - 13) <= 1


def test_moves_change_one_to_three_groups_and_stay_in_the_table(both: Both) -> None:
    space, options, menus = both
    rng, seen, jumps = np.random.default_rng(0), set(), 0
    share = menus.share(EVEN)
    for places in drawn_places(both, 400):
        before = places.copy()
        moved = menus.moved(places, rng)
        assert places.tolist() == before.tolist()
        assert (moved < [len(options.of[group.name]) for group in space.groups]).all()
        changed = np.flatnonzero(moved != places)
        assert len(changed) <= 3
        seen.add(len(changed))
        for group in changed:
            row, errors = share[group], menus.errors[group]
            on_front = not any(
                row[o] <= row[moved[group]] and errors[o] < errors[moved[group]] for o in range(len(row))
            )
            is_near = abs(row[moved[group]] - row[places[group]]) <= ABOUT * row[0]
            assert on_front or is_near
            jumps += not on_front
    assert seen == {0, 1, 2, 3}
    assert jumps > 0


def test_moves_leave_a_group_that_is_always_dense(make: Make) -> None:
    """Groups of one option beside others: what fills the arrays up is never chosen."""
    space, costs, _ = make(("svd",), {name: LAYERS[name] for name in ("body", "head")})
    options = OptionTable(space.groups, costs, made_up_error(space), space.round_to)
    options.of["body"] = options.of["body"][:1]
    menus, rng = OptionArrays(options, ["body", "head"]), np.random.default_rng(0)
    places = np.array([0, 3])
    for _ in range(100):
        places = menus.moved(places, rng)
        assert places[0] == 0
    assert menus.solved(np.ones((2, 1)), 1e9, menus.share(EVEN))[0] == 0
