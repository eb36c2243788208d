"""Asking, telling, feeding: no point twice, no seed twice, and a resumed search is the same search."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from rank_search.layers import Layer
from rank_search.options import CostModel
from rank_search.point import Outcome, Point, State
from rank_search.search import (
    AutoSearcher,
    KeptShares,
    OptunaSearcher,
    Searcher,
    SearchSettings,
    SearchTrial,
    Space,
    Weakenings,
    check_counted,
    seed_points,
)
from tests.small_space import LADDERS, options_of

Make = Callable[..., tuple[Space, CostModel, SearchSettings]]


def searcher(made: tuple[Space, CostModel, SearchSettings], rng_seed: int = 3) -> Searcher:
    """With the seed points that need no options, which only the sampler `auto` is given."""
    space, costs, settings = made
    known = settings, seed_points(space, costs, settings), {**costs.dense, "error": 0}, rng_seed
    if settings.sampler == "auto":
        return AutoSearcher(space, options_of(made), *known)
    if settings.sampler == "bolaco":
        return OptunaSearcher(KeptShares(space, options_of(made), settings), *known)
    return OptunaSearcher(Weakenings(space, costs), *known)


def measure(costs: CostModel, point: Point) -> Outcome:
    """A made-up error that falls with every rank, so that there is a trade-off to search."""
    error = sum(1 / (1 + min(choice.values.values())) for choice in point.layers.values() if choice.values)
    return Outcome(State.COMPLETE, {"error": error, **costs.cost(point)})


def judge(made: tuple[Space, CostModel, SearchSettings], number: int, point: Point) -> Outcome:
    """Complete for the most part; every eleventh diverges, every seventh fails; constraints are respected."""
    _, costs, settings = made
    if infeasible := check_counted(settings.constraints, costs.cost(point), costs.dense):
        return infeasible
    if number % 11 == 10:
        return Outcome(State.DIVERGED, {"error": math.nan, **costs.cost(point)}, "loss is not finite")
    return Outcome(State.FAILED) if number % 7 == 6 else measure(costs, point)


def drive(made: tuple[Space, CostModel, SearchSettings], asked: Searcher, numbers: Iterable[int]) -> list[SearchTrial]:
    trials = []
    for number in numbers:
        trial = asked.ask(number)
        assert trial is not None
        outcome = judge(made, number, trial.point)
        asked.tell(trial, outcome)
        trials.append(stored(replace(trial, outcome=outcome)))
    return trials


def stored(past: SearchTrial) -> SearchTrial:
    """The trial as it comes back from a store: through JSON."""
    point = Point.from_json(json.loads(json.dumps(past.point.to_json())))
    return replace(past, point=point, sampler=json.loads(json.dumps(past.sampler)))


PENALTIES = {"entropy": {"low": 1e-4, "high": 1e-1}, "orthogonality": {"low": 1e-3, "high": 1.0}}
SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "auto"},
    {"sampler": "auto", "constraints": ["macs <= 0.6 * dense", "error <= 2"]},
    {"sampler": "tpe", "seeds": LADDERS},
    {"sampler": "tpe", "constraints": ["macs <= 0.6 * dense"]},
    {"sampler": "nsga2", "options": {"population_size": 8}},
    {"sampler": "nsga2", "options": {"population_size": 8}, "constraints": ["macs <= 0.6 * dense", "error <= 2"]},
    {"sampler": "nsga3", "options": {"population_size": 8}},
    {"sampler": "random"},
]


@pytest.mark.parametrize("settings", SAMPLERS, ids=lambda each: "-".join(map(str, each.values())))
def test_a_search_killed_and_resumed_is_the_same_search(make: Make, settings: dict[str, Any]) -> None:
    made = make(**settings, **PENALTIES)
    straight = drive(made, searcher(made), range(40))

    killed = drive(made, searcher(made), range(17))
    resumed = searcher(made)
    resumed.feed(reversed(killed))
    rest = drive(made, resumed, range(17, 29))
    again = searcher(made)
    again.feed([*killed, *rest])
    rest += drive(made, again, range(29, 40))

    assert [past.point for past in killed + rest] == [past.point for past in straight]


# The first six digits of the keys of trials 0 to 19, the seed points among them: they must never change.
SEEDED = "28dd3c 1f0bef 400bf8 1154a4 082485 0a710b 733937 5fccbe adac62 0667fb f8b019"
FROZEN = {
    "auto": "80bdc9 e47e65 3ff5fe 71468a dfdb97 80a053 22941c 342457 40f447",
    "tpe": "050b3e 74d639 2cee06 a5bb56 b2b061 a15998 edb4ef 9714bd e43001",
    "nsga2": "39f326 95ee49 8c4c45 a723cf 1893a5 bcf1a6 e2983a 9fff84 86709b",
}


@pytest.mark.parametrize("sampler", FROZEN)
def test_the_same_rng_seed_gives_the_same_points_in_every_version(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=LADDERS)
    keys = [past.point.key[:6] for past in drive(made, searcher(made), range(20))]
    assert keys == f"{SEEDED} {FROZEN[sampler]}".split()


@pytest.mark.parametrize("sampler", ["gp", "bolaco"])
def test_a_search_by_gaussian_processes_resumes_too(make: Make, sampler: str) -> None:
    made = make(
        ("svd",), sampler=sampler, options={"n_startup_trials": 3}, seeds={"fractions": [0.5, 0.3], "weakenings": []}
    )
    straight = drive(made, searcher(made), range(6))
    resumed = searcher(made)
    resumed.feed(straight[:5])
    assert [past.point for past in drive(made, resumed, range(5, 6))] == [past.point for past in straight[5:]]
    assert straight[5].label == sampler


@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3", "random"])
def test_no_point_is_asked_twice(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, round_to=8)
    keys = [past.point.key for past in drive(made, searcher(made), range(60))]
    assert len(set(keys)) == 60


def test_another_rng_seed_is_another_search(make: Make) -> None:
    made = make(sampler="random")
    first, second = (drive(made, searcher(made, rng_seed), range(20)) for rng_seed in (0, 1))
    assert [past.point for past in first] != [past.point for past in second]


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_seeds_come_first_and_once_in_the_life_of_the_study(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=LADDERS)
    labels = [seed.label for seed in seed_points(*made)]
    trials = drive(made, searcher(made), range(3))
    resumed = searcher(made)
    resumed.feed(trials)
    trials += drive(made, resumed, range(3, len(labels) + 2))
    assert [past.label for past in trials] == [*labels, sampler, sampler]


def test_a_searcher_ends_when_a_small_space_is_exhausted(make: Make) -> None:
    layers = {"head": Layer("head", "linear", (40, 64), inputs=((1, 64),))}
    made = make(("svd",), layers, sampler="random", round_to=16, seeds={"fractions": [], "weakenings": []})
    asked = searcher(made)
    found = set()
    for number in range(20):
        trial = asked.ask(number)
        if trial is None:
            break
        found.add(tuple(trial.point.layers["head"].values.values()))
        asked.tell(trial, judge(made, number, trial.point))
    # 40 × 64 saves parameters up to rank 24: dense, and the only multiple of 16.
    assert found == {(), (16,)}
    assert asked.ask(99) is None


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_a_trial_in_flight_is_fed_and_told_later(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=LADDERS)
    first = searcher(made)
    trials = drive(made, first, range(14))
    flying = first.ask(14)
    assert flying is not None

    resumed = searcher(made)
    resumed.feed([*trials, stored(flying)])
    outcome = judge(made, 14, flying.point)
    resumed.tell(flying, outcome)
    first.tell(flying, outcome)
    again, straight = resumed.ask(15), first.ask(15)
    assert again is not None
    assert straight is not None
    assert again.point == straight.point


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_workers_at_once_get_different_points(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=LADDERS)
    asked = searcher(made)
    drive(made, asked, range(14))
    waiting = [asked.ask(number) for number in range(14, 22)]
    assert len({each.point.key for each in waiting if each}) == 8


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_feeding_a_searcher_again_changes_nothing_and_completes_trials_in_flight(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=LADDERS)
    trials = drive(made, searcher(made), range(16))
    in_flight = [replace(past, outcome=None) for past in trials[8:]]
    resumed, straight = searcher(made), searcher(made)
    resumed.feed([*trials[:8], *in_flight])
    resumed.feed(trials)
    resumed.feed(trials)
    straight.feed(trials)
    assert resumed.ask(16) == straight.ask(16)


def test_points_of_another_driver_are_not_asked_again(make: Make) -> None:
    made = make(sampler="random")
    other = drive(made, searcher(made), range(20))
    mine = searcher(made)
    mine.feed([replace(past, outcome=None) for past in other])
    assert mine.ask(15) not in [replace(past, outcome=None) for past in other]


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_a_withdrawn_trial_is_forgotten(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=LADDERS)
    asked = searcher(made)
    drive(made, asked, range(14))
    first = asked.ask(14)
    assert first is not None
    asked.withdraw(first)
    again = asked.ask(14)
    assert again is not None
    assert again.point == first.point


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_sampler_learns_from_infeasible_trials(make: Make, sampler: str) -> None:
    """Without feedback a random point is rarely this cheap; with it most points are."""
    seeds = {"dense": False, "fractions": [], "weakenings": []}
    tight = {"constraints": ["macs <= 0.2 * dense"], "seeds": seeds}
    options = {"population_size": 10} if sampler == "nsga2" else {}
    shares = []
    for name, chosen in (("random", {}), (sampler, options)):
        made = make(sampler=name, options=chosen, **tight)
        trials = drive(made, searcher(made), range(90))
        shares.append(sum(past.outcome.state is not State.INFEASIBLE for past in trials[60:] if past.outcome))
    assert shares[1] > shares[0] + 5


def test_a_search_beats_random_points(make: Make) -> None:
    """Sum of two losses over the last trials, without any seeds."""
    seeds = {"dense": False, "fractions": [], "weakenings": []}

    def late(sampler: str) -> float:
        made = make(sampler=sampler, seeds=seeds, objectives=["error"])
        trials = drive(made, searcher(made), range(60))
        errors = [past.outcome.measurements.get("error", math.nan) for past in trials[30:] if past.outcome]
        known = [error for error in errors if math.isfinite(error)]
        return sum(known) / len(known)

    assert late("tpe") < 0.7 * late("random")


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_a_searcher_prints_nothing_and_leaves_loggers_alone(
    make: Make, sampler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger("optuna").level
    made = make(sampler=sampler)
    drive(made, searcher(made), range(5))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").level == level
