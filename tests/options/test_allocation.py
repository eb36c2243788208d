"""The front of errors and costs, against all combinations of options."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.options import Option, allocation, by_gain, cost_shares, mean_shares, spread
from rank_search.options.allocation import lagrangian_front, price_of
from rank_search.pareto import ReferenceBox

# Small whole numbers, as floats: sums are exact, and ties are frequent.
NUMBERS = st.integers(0, 6).map(float)
MENUS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), min_size=1, max_size=4)
Menus = list[list[tuple[float, float]]]


def front_of(menus: Menus) -> list[allocation.HullPoint]:
    return lagrangian_front(
        [[cost for cost, _ in each] for each in menus], [[error for _, error in each] for each in menus]
    )


def all_sums(menus: Menus) -> set[tuple[float, float]]:
    """Σ cost and Σ error of every combination."""
    return {
        (sum(cost for cost, _ in chosen), sum(error for _, error in chosen)) for chosen in itertools.product(*menus)
    }


def best_for_some_price(sums: set[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the lower convex hull: undominated, and below every line between two others."""

    def is_corner(point: tuple[float, float]) -> bool:
        if any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in sums):
            return False
        left = [other for other in sums if other[0] < point[0]]
        right = [other for other in sums if other[0] > point[0]]
        return not any(
            (point[1] - a[1]) * (b[0] - a[0]) >= (b[1] - a[1]) * (point[0] - a[0]) for a in left for b in right
        )

    return sorted((each for each in sums if is_corner(each)), reverse=True)


@given(MENUS)
def test_lagrangian_front_corners_are_those_of_all_combinations(menus: Menus) -> None:
    """Steps of equal price lie on one line: of these only the ends are corners."""
    front = front_of(menus)
    prices = [*(each.price for each in front[1:]), math.inf]
    ends = [(each.cost, each.error) for each, price in zip(front, prices, strict=True) if each.price < price]
    assert ends == best_for_some_price(all_sums(menus))


@given(MENUS)
def test_allocations_are_best_at_their_price(menus: Menus) -> None:
    sums = all_sums(menus)
    for each in front_of(menus):
        least = min(error + each.price * cost for cost, error in sums)
        assert each.error + each.price * each.cost == pytest.approx(least, abs=1e-9)


@given(MENUS)
def test_allocation_costs_fall_and_errors_rise_and_are_those_of_the_chosen_options(menus: Menus) -> None:
    front = front_of(menus)
    for before, after in itertools.pairwise(front):
        assert before.cost > after.cost
        assert before.error < after.error
        assert before.price <= after.price
    for each in front:
        chosen = [menu[place] for menu, place in zip(menus, each.chosen, strict=True)]
        assert each.cost == pytest.approx(sum(cost for cost, _ in chosen))
        assert each.error == pytest.approx(sum(error for _, error in chosen))
    costs, errors = zip(*all_sums(menus), strict=True)
    assert front[0].error == min(errors)
    assert front[-1].cost == min(costs)


def test_one_option_each_leaves_one_allocation() -> None:
    (only,) = front_of([[(3.0, 1.0)], [(2.0, 0.5)]])
    assert (only.chosen, only.price, only.cost, only.error) == ((0, 0), 0.0, 5.0, 1.5)


def test_of_equal_errors_only_the_cheapest_counts() -> None:
    (only,) = front_of([[(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)]])
    assert only.chosen == (1,)


def test_equal_prices_go_in_the_order_of_the_groups() -> None:
    front = front_of([[(2.0, 0.0), (1.0, 1.0)]] * 3)
    assert [each.chosen for each in front] == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)]


@given(MENUS, st.integers(1, 6), st.integers(0, 5))
def test_spread_is_of_the_front_and_never_more_than_asked_for(menus: Menus, count: int, fixed: int) -> None:
    front = front_of(menus)
    chosen = spread(front, count, fixed)
    assert len(chosen) == len({each.chosen for each in chosen}) <= min(count, len(front) - 1)
    assert all(each in front[1:] for each in chosen)
    assert len(front) < 2 or len(chosen) >= 1


def test_spread_has_even_ratios_of_costs_and_ends_with_the_least() -> None:
    front = lagrangian_front([[2.0 ** (10 - k) for k in range(11)]], [[k**2 * 3.0**k for k in range(11)]])
    assert [each.cost for each in spread(front, 5)] == [256.0, 64.0, 16.0, 4.0, 1.0]


def test_spread_of_an_empty_front_is_empty() -> None:
    assert spread([], 3) == []
    assert spread(lagrangian_front([[1.0]], [[0.0]]), 3) == []


@pytest.mark.parametrize(
    ("objectives", "shares"),
    [
        (["error", "macs"], [(0, 1)]),
        (["error", "latency_ratio"], [(0, 1)]),
        (["error", "bits"], [(1, 0)]),
        (["params", "error", "latency"], [(0, 1), (1, 0), (0.5, 0.5)]),
        (["error"], [(0.5, 0.5)]),
    ],
)
def test_cost_shares_follow_the_objectives(objectives: list[str], shares: list[tuple[float, float]]) -> None:
    found = [(each["params"], each["macs"]) for each in cost_shares(objectives)]
    assert found == shares
    mean = mean_shares(objectives)
    assert mean["params"] == pytest.approx(sum(params for params, _ in shares) / len(shares))
    assert mean["params"] + mean["macs"] == pytest.approx(1)


def test_price_of_an_option_is_a_share_of_the_dense_model() -> None:
    option = Option({}, params=10, macs=30, error=0.0)
    dense = {"params": 100, "macs": 60}
    assert price_of(option, {"params": 0.5, "macs": 0.5}, dense) == pytest.approx(0.3)
    assert price_of(option, {"params": 1.0, "macs": 0.0}, {"params": 100, "macs": 0}) == pytest.approx(0.1)


@given(MENUS, st.integers(1, 3), st.integers(1, 3))
def test_by_gain_adds_the_most_hypervolume_first(menus: Menus, dearer: int, worse: int) -> None:
    front = front_of(menus)
    cost, error = front[0].cost + dearer, front[-1].error + worse
    box = ReferenceBox((0.0, 0.0), (cost, error))
    ordered = by_gain(front, cost, error)
    assert sorted(ordered, key=front.index) == front
    for place in range(len(ordered)):
        before = [(each.cost, each.error) for each in ordered[:place]]
        worth = [box.hypervolume([*before, (each.cost, each.error)]) for each in ordered[place:]]
        assert worth[0] == pytest.approx(max(worth))


def test_by_gain_takes_the_dearer_of_equal_gains() -> None:
    front = [allocation.HullPoint((), 0.0, 2.0, 1.0), allocation.HullPoint((), 0.0, 1.0, 2.0)]
    assert by_gain(front, 3.0, 3.0) == front
    assert by_gain([], 3.0, 3.0) == []
