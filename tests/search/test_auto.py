"""The sampler `auto`: what it proposes, what it learns, and that it finds more than others do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import moocore
import numpy as np
import pytest

from rank_search.layers import Layer
from rank_search.options import OptionTable, allocate
from rank_search.options.allocation import lagrangian_front
from rank_search.point import Choice, Outcome, Point, State
from rank_search.search import AutoSearcher, OptunaSearcher, Searcher, SearchTrial, Weakenings, seed_points
from rank_search.search.auto import Auto
from tests.small_space import LAYERS, Made, made_up_error, options_of

Make = Callable[..., Made]
NO_SEEDS = {"dense": False, "allocations": 0}
PENALTIES = {"entropy": {"low": 1e-4, "high": 1e-1}, "orthogonality": {"low": 1e-3, "high": 1.0}}
EIGHT = {
    name: Layer(name, "conv2d", (32, 32, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 32, 8, 8),))
    for name in (f"conv{number}" for number in range(8))
}
COUNTS = (0.02, 0.05, 0.1, 0.3, 0.6, 1.5, 4.0, 10.0)
"""How much the errors of these eight count."""


class Problem:
    """`auto`, and a loss that is known: the least error, plus a tenth of the mean of a_g·e_g."""

    def __init__(self, made: Made, counts: Iterable[float] | None = None) -> None:
        self.space, self.costs, self.settings = self.made = made
        self.options, self.error_of = options_of(made), made_up_error(self.space)
        self.layers = [layer for group in self.space.groups for layer in group.layers]
        self.counts = list(counts or [1.0] * len(self.layers))
        self.dense = {**self.costs.dense, "error": 0.01, "accuracy": 0.99}

    def auto(self) -> Auto:
        return Auto(self.space, self.options, self.settings, self.dense)

    def measure(self, point: Point) -> dict[str, float]:
        pairs = zip(self.layers, self.counts, strict=True)
        error = sum(counts * self.error_of(layer, point.layers[layer]) for layer, counts in pairs)
        error = 0.01 + 0.1 * error / sum(self.counts)
        return {**self.costs.cost(point), "error": error, "accuracy": 1 - error}

    def losses(self, point: Point) -> tuple[float, ...]:
        measured = self.measure(point)
        return tuple(each.loss(measured[each.name]) for each in self.settings.objectives)

    def drive(self, count: int, rng_seed: int = 0) -> list[Point]:
        """One after the other, without seed points."""
        auto, tried = self.auto(), dict[str, Point]()
        for number in range(count):
            point = auto.propose(np.random.default_rng([rng_seed, number]), tried)
            assert point is not None
            tried[point.key] = point
            auto.begin(point)
            auto.learn(point, self.losses(point))
        return list(tried.values())


def drawn_points(problem: Problem, count: int) -> list[Point]:
    """Any options that keep some of the outputs, each point with another share of dense groups."""
    rng, found = np.random.default_rng(0), []
    for share in np.linspace(0.2, 1.0, count):
        menus = [[option for option in menu if option.error < 0.7] for menu in problem.options.of.values()]
        chosen = [menu[int(rng.integers(len(menu)))] if rng.random() < share else menu[0] for menu in menus]
        found.append(Point({layer: choice for option in chosen for layer, choice in option.choices.items()}))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        PENALTIES,
        {"objectives": ["error", "macs", "params"]},
        {"objectives": ["macs", "params"]},
        {"objectives": [{"name": "accuracy", "direction": "maximize"}, "params"]},
        {"objectives": ["error"], "round_to": 4},
        {"groups": {"stem": ("stem",), "twins": ("body", "neck"), "head": ("head",)}},
    ],
    ids=str,
)
def test_auto_proposes_new_points_of_the_space(make: Make, settings: dict[str, Any]) -> None:
    problem = Problem(make(**settings))
    points = problem.drive(25)
    assert len({point.key for point in points}) == 25
    for point in points:
        assert list(point.layers) == problem.layers
        for group in problem.space.groups:
            for layer in group.layers:
                choice = point.layers[layer]
                assert choice.is_dense or problem.costs.saves(layer, choice)
                for _, axis, value in group.chosen(layer, choice):
                    assert axis.low <= value <= axis.high
                    assert value == axis.snap(value, problem.space.round_to)
        assert set(point.penalties) == set(problem.space.penalties)
        for name, strength in problem.space.penalties.items():
            assert strength.allows(point.penalties[name])


def test_auto_learns_of_points_whose_fits_are_not_finite(make: Make) -> None:
    """As if their outputs were lost."""
    problem = Problem(make(("svd",)))
    lost = Point({name: Choice("svd", {"rank": 3}) for name in problem.layers})
    told = {}
    for worst in (1.0, math.inf):
        table = OptionTable(
            problem.space.groups,
            problem.costs,
            lambda layer, choice, worst=worst: (  # type: ignore[misc]
                worst if choice == lost.layers[layer] else problem.error_of(layer, choice)
            ),
        )
        auto = Auto(problem.space, table, problem.settings, problem.dense)
        auto.begin(lost)
        auto.learn(lost, (0.5, 1e4))
        told[worst] = auto._seen[lost.key].known.row
    assert np.isfinite(told[math.inf]).all()
    np.testing.assert_allclose(told[math.inf], told[1.0])


def test_auto_tries_penalties_all_over_their_ranges_and_off(make: Make) -> None:
    found = [point.penalties["entropy"] for point in Problem(make(**PENALTIES)).drive(40)]
    assert 0.0 in found
    on = np.log10([each for each in found if each > 0])
    assert on.min() < -3
    assert on.max() > -2


def test_auto_proposes_the_same_with_the_same_rng(make: Make) -> None:
    problem = Problem(make(**PENALTIES))
    assert problem.drive(12) == problem.drive(12)
    assert problem.drive(12) != problem.drive(12, rng_seed=1)


def test_auto_does_not_depend_on_the_order_of_learning(make: Make) -> None:
    problem = Problem(make(**PENALTIES))
    points = problem.drive(14)
    flying, known = points[12:], points[:12]
    proposed = []
    for order in (known, known[::-1], known[5:] + known[:5]):
        auto = problem.auto()
        for point in [*order, *flying] if order is known else [*flying[::-1], *order]:
            if point in flying:
                auto.begin(point)
            else:
                auto.learn(point, problem.losses(point))
        proposed.append(auto.propose(np.random.default_rng(7), {point.key for point in points}))
    assert proposed[0] == proposed[1] == proposed[2]


def test_auto_counts_the_newest_outcome_of_a_point(make: Make) -> None:
    problem = Problem(make())
    points = problem.drive(8)
    often, once, keys = problem.auto(), problem.auto(), {point.key for point in points}
    for auto in (often, once):
        for point in points[:6]:
            auto.learn(point, problem.losses(point))
    often.learn(points[6], (0.08, 9e5), 1 / 9, is_complete=False)
    often.learn(points[7], (0.08, 9e5), 1 / 9, is_complete=False)
    for auto in (often, once):
        auto.learn(points[6], problem.losses(points[6]))
        auto.learn(points[7], None)
    assert often.propose(np.random.default_rng(0), keys) == once.propose(np.random.default_rng(0), keys)


def test_auto_learns_a_trial_at_what_its_model_has_become(make: Make) -> None:
    problem = Problem(make())
    *points, asked, became = problem.drive(10)
    losses, keys = problem.losses(became), {point.key for point in (*points, asked, became)}
    proposed = []
    for learned in ((asked, became), (became, None), (asked, None)):
        auto = problem.auto()
        for point in points:
            auto.learn(point, problem.losses(point))
        auto.begin(asked)
        auto.learn(learned[0], losses, became=learned[1])
        auto.forget(asked.key)
        proposed.append(auto.propose(np.random.default_rng(7), keys))
    assert proposed[0] == proposed[1] != proposed[2]


def test_a_search_by_auto_learns_what_a_store_says_a_trial_has_become(make: Make) -> None:
    made = make()
    problem = Problem(made)
    _, *points = problem.drive(8)
    seen = []
    for settled in (points[1], None):
        searcher = AutoSearcher(problem.space, problem.options, problem.settings, [], problem.dense)
        outcome = Outcome(State.COMPLETE, problem.measure(points[1]), settled=settled)
        searcher.feed([SearchTrial(0, points[0], {"label": "x"}, outcome)])
        seen.append(searcher._auto._seen[points[0].key].known.row.tolist())
    auto = problem.auto()
    auto.learn(points[1], problem.losses(points[1]))
    assert seen[0] == auto._seen[points[1].key].known.row.tolist() != seen[1]


def test_auto_avoids_points_in_flight_and_their_like(make: Make) -> None:
    problem = Problem(make(layers=EIGHT), COUNTS)
    auto, known = problem.auto(), {point.key: point for point in problem.drive(15)}
    for point in known.values():
        auto.learn(point, problem.losses(point))
    rng = lambda: np.random.default_rng(5)  # noqa: E731
    costs = []
    for _ in range(6):
        point = auto.propose(rng(), known)
        assert point is not None
        known[point.key] = point
        auto.begin(point)
        costs.append(problem.costs.cost(point)["macs"] / problem.dense["macs"])
    assert len(set(known)) == 21
    assert max(costs) - min(costs) > 0.05, "the same rng without regard to points in flight repeats itself"
    auto.forget(point.key)
    assert auto.propose(rng(), set(known) - {point.key}) == point


@pytest.mark.parametrize(
    ("bounds", "holds"),
    [
        (["macs <= 0.4 * dense"], lambda cost, dense: cost["macs"] <= 0.4 * dense["macs"]),
        (["params <= 20000"], lambda cost, dense: cost["params"] <= 20000),
        (
            ["macs <= 0.6 * dense", "params >= 0.3 * dense"],
            lambda cost, dense: cost["macs"] <= 0.6 * dense["macs"] and cost["params"] >= 0.3 * dense["params"],
        ),
    ],
)
def test_auto_keeps_bounds_on_counted_costs(make: Make, bounds: list[str], holds: Callable[..., bool]) -> None:
    problem = Problem(make(constraints=bounds))
    assert all(holds(problem.costs.cost(point), problem.costs.dense) for point in problem.drive(25))


def test_auto_spends_what_a_bound_allows_where_no_objective_is_a_cost(make: Make) -> None:
    problem = Problem(make(layers=EIGHT, objectives=["error"], constraints=["macs <= 0.5 * dense"]), COUNTS)
    points = problem.drive(20)
    kept = [problem.costs.cost(point)["macs"] / problem.costs.dense["macs"] for point in points]
    assert all(0.4 < each <= 0.5 for each in kept)
    unlearned = allocate(problem.options, macs=0.5).point
    assert min(map(problem.losses, points)) < problem.losses(unlearned)


def test_auto_looks_near_the_box_where_nothing_is_expected_inside(make: Make) -> None:
    """The worst loss worth having is out of reach of every point within the bound."""
    made = make(layers=EIGHT, objectives=["error"], constraints=["macs <= 0.2 * dense"], reference={"error": 0.012})
    problem = Problem(made, COUNTS)
    points = problem.drive(20)
    assert min(map(problem.losses, points[10:])) < min(map(problem.losses, points[:5]))


@pytest.mark.parametrize("bound", ["error <= 0.03", "error <= 3 * dense"])
def test_auto_keeps_a_bound_on_an_objective_once_it_is_learned(make: Make, bound: str) -> None:
    def late(**settings: Any) -> int:
        problem = Problem(make(layers=EIGHT, **settings), COUNTS)
        return sum(problem.measure(point)["error"] <= 0.03 for point in problem.drive(30)[15:])

    assert late(constraints=[bound]) >= 12
    assert late(constraints=[bound]) > late() + 3


def test_auto_learns_from_a_point_that_breaks_a_bound_but_keeps_it_off_the_front(make: Make) -> None:
    """A point that is infeasible covers nothing, so the like of it is still worth trying."""
    problem = Problem(make(layers=EIGHT), COUNTS)
    points = problem.drive(12)
    proposed = []
    for is_complete in (True, False):
        auto = problem.auto()
        for point in points:
            auto.learn(point, problem.losses(point), 1.0, is_complete)
        proposed.append(auto.propose(np.random.default_rng(0), set()))
    assert proposed[0] != proposed[1]
    assert proposed[1] is not None
    measured = problem.measure(proposed[1])
    gain = (0.11 - measured["error"]) * (problem.dense["macs"] - measured["macs"])
    others = [problem.measure(each) for each in points]
    assert gain > 0.9 * max((0.11 - each["error"]) * (problem.dense["macs"] - each["macs"]) for each in others)


def test_auto_learns_from_small_budgets(make: Make) -> None:
    """At a tenth of the budget every loss is three times as large; which errors count is the same."""
    problem = Problem(make(layers=EIGHT), COUNTS)
    auto = problem.auto()
    for number, point in enumerate(drawn_points(problem, 60)):
        (error, macs), is_complete = problem.losses(point), number % 8 == 0
        share, error = (1.0, error) if is_complete else (0.1, 3 * error)
        auto.learn(point, (error, macs), share, is_complete=is_complete)
    (surrogate, counted) = auto._surrogates()
    assert counted is None
    assert surrogate is not None
    assert surrogate.linear.weights()[-1] * np.log(0.1) == pytest.approx(np.log(3), abs=0.15)
    weights = auto._features.weights(surrogate.linear.weights()[None])[0].mean(axis=1)
    assert weights[6:].min() > 2 * weights[:6].max()


def test_auto_copes_with_equal_losses(make: Make) -> None:
    for losses in ((0.01, 5e5), (0.0, 0.0), (1e30, 5e5), (-1.0, 5e5)):
        problem, tried = Problem(make(**PENALTIES)), set[str]()
        auto = problem.auto()
        for number in range(12):
            point = auto.propose(np.random.default_rng(number), tried)
            assert point is not None
            tried.add(point.key)
            auto.learn(point, losses)


def test_auto_copes_with_the_dense_model_alone(make: Make) -> None:
    problem = Problem(make())
    auto, dense = problem.auto(), Point({layer: Choice() for layer in problem.layers})
    auto.learn(dense, problem.losses(dense))
    point = auto.propose(np.random.default_rng(0), {dense.key})
    assert point is not None
    assert point.key != dense.key


def test_auto_searches_a_single_group_until_nothing_is_left(make: Make) -> None:
    made = make(("svd",), {"head": LAYERS["head"]}, round_to=8)
    problem = Problem(made)
    auto, tried = problem.auto(), dict[str, Point]()
    while point := auto.propose(np.random.default_rng(len(tried)), tried):
        tried[point.key] = point
        auto.learn(point, problem.losses(point))
        assert len(tried) <= 4
    assert {tuple(each.layers["head"].values.values()) for each in tried.values()} == {(), (8,), (16,), (24,)}


def test_auto_falls_back_on_random_points_when_nothing_is_left_and_ends(make: Make) -> None:
    space, costs, settings = made = make(("svd",), {"head": LAYERS["head"]}, round_to=4, seeds=NO_SEEDS)
    options = OptionTable(space.groups, costs, made_up_error(space), space.round_to)
    options.of["head"] = options.of["head"][:4]
    problem = Problem(made)
    asked = AutoSearcher(space, options, settings, [], problem.dense)
    labels, number = [], 0
    while trial := asked.ask(number):
        asked.tell(trial, Outcome(State.COMPLETE, problem.measure(trial.point)))
        labels.append(trial.label)
        number += 1
    assert labels[:4] == ["auto"] * 4
    assert set(labels[4:]) == {"random"}
    assert len(labels) == 7  # dense, and the multiples of 4 up to 24


def test_diverged_trials_are_told_again_when_something_worse_is_seen(make: Make) -> None:
    """However late it is fed: as if it had been known from the start."""
    problem = Problem(make(seeds=NO_SEEDS, constraints=["error <= 0.05"]))
    space, costs, settings = problem.made

    def searcher() -> Searcher:
        return AutoSearcher(space, problem.options, settings, [], problem.dense)

    def outcome(number: int, point: Point) -> Outcome:
        measured = problem.measure(point)
        if number % 4 == 1:
            return Outcome(State.DIVERGED, costs.cost(point), "loss is not finite")
        state = State.COMPLETE if measured["error"] <= 0.05 else State.INFEASIBLE
        return Outcome(state, measured)

    straight, trials = searcher(), []
    for number in range(16):
        trial = straight.ask(number)
        assert trial is not None
        trials.append(replace(trial, outcome=outcome(number, trial.point)))
        straight.tell(trial, trials[-1].outcome or Outcome(State.FAILED))
    diverged = [past for past in trials if past.number % 4 == 1]
    early, late = searcher(), searcher()
    early.feed(diverged)
    early.feed(trials)
    late.feed([past for past in trials if past.number % 4 != 1])
    late.feed(trials)
    expected = straight.ask(16)
    assert expected is not None
    for each in (early.ask(16), late.ask(16)):
        assert each is not None
        assert each.point == expected.point


def hypervolume(problem: Problem, points: Iterable[Point]) -> float:
    measured = [problem.measure(point) for point in points]
    losses = np.array([[each["error"], each["macs"] / problem.dense["macs"]] for each in measured])
    return float(moocore.hypervolume(losses, ref=[0.11, 1.0]))


def best_points(problem: Problem) -> list[Point]:
    """All corners of the front, knowing how much each error counts."""
    menus = [problem.options.of[group.name] for group in problem.space.groups]
    errors = [[a * option.error for option in menu] for a, menu in zip(problem.counts, menus, strict=True)]
    found = []
    for each in lagrangian_front([[option.macs for option in menu] for menu in menus], errors):
        chosen = [menu[place] for place, menu in zip(each.chosen, menus, strict=True)]
        found.append(Point({layer: choice for option in chosen for layer, choice in option.choices.items()}))
    return found


@pytest.mark.parametrize("rng_seed", [0, 1, 2])
def test_auto_finds_more_than_random_points_and_unlearned_allocations(make: Make, rng_seed: int) -> None:
    counts = np.random.default_rng(rng_seed).permutation(COUNTS).tolist()
    problem = Problem(make(layers=EIGHT), counts)
    found = hypervolume(problem, problem.drive(60, rng_seed))

    made = make(layers=EIGHT, sampler="random", seeds=NO_SEEDS)
    asked, points = OptunaSearcher(Weakenings(*made[:2]), made[2], [], problem.dense, rng_seed), []
    for number in range(60):
        trial = asked.ask(number)
        assert trial is not None
        points.append(trial.point)
    static = make(layers=EIGHT, seeds={"dense": False, "allocations": 60})
    seeds = [seed.point for seed in seed_points(*static, problem.options)]
    assert len(seeds) > 20
    best = hypervolume(problem, best_points(problem))
    missing = [best - each for each in (found, hypervolume(problem, points), hypervolume(problem, seeds))]
    assert missing[0] < 0.5 * missing[1]
    assert missing[0] < 0.5 * missing[2]


def test_auto_foresees_error_rates_near_chance(make: Make) -> None:
    """A box up to chance: what is cut further than all that was seen is no worse than that; a logarithm says 114 %."""
    problem = Problem(make(layers=EIGHT, reference={"error": 0.9}), COUNTS)
    auto, points = problem.auto(), drawn_points(problem, 60)

    def error_at(point: Point) -> float:
        return 0.95 * (1 - float(np.exp(-40 * (problem.measure(point)["error"] - 0.01))))

    by_error = sorted(points, key=error_at)
    for point in by_error[:45]:
        auto.learn(point, (error_at(point), problem.measure(point)["macs"]))
    (surrogate, _) = auto._surrogates()
    assert surrogate is not None
    rows = np.array([auto._known(point, 1.0).row for point in by_error[45:]])
    expected = auto._scales[0].losses(surrogate.predict(rows, auto._features.positions(rows))[0])
    assert expected == pytest.approx([error_at(point) for point in by_error[45:]], abs=0.06)
