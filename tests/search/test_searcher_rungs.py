"""A search with early stopping: what a stopped trial teaches, and that a resumed search is still the same search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rank_search.options import CostModel
from rank_search.point import Outcome, Point, State
from rank_search.search import Rungs, Searcher, SearchSettings, SearchTrial, Space, check, check_counted
from rank_search.search.results import BUDGET, Results, Told
from tests.search.test_searcher import PENALTIES, SAMPLERS, measure, searcher, stored
from tests.small_space import LADDERS, Made

Make = Callable[..., tuple[Space, CostModel, SearchSettings]]

FULL = 9.0
RUNGS = {"rungs": {"first": 1, "factor": 3}}
FEW_SEEDS = {"dense": True, "fractions": [0.5, 0.25], "weakenings": []}


def judge(made: Made, number: int, point: Point, budget: float) -> Outcome:
    """Errors fall with the budget; some trials fail or diverge, at the first rung or at the second."""
    _, costs, settings = made
    if refused := check_counted(settings.constraints, costs.cost(point), costs.dense):
        return refused
    if number % 11 == 10 and budget >= 1 + 2 * (number % 2):
        return Outcome(State.DIVERGED, {"error": math.nan, **costs.cost(point)}, "loss is not finite")
    if number % 7 == 6 and budget >= 1 + 2 * (number % 2):
        return Outcome(State.FAILED)
    measured = measure(costs, point).measurements
    measured = {**measured, "error": measured["error"] + (number % 5) / max(1, budget)}
    if budget < FULL:
        return Outcome(State.STOPPED, measured)
    broken = check(settings.constraints, measured, costs.dense)
    return Outcome(State.INFEASIBLE if broken else State.COMPLETE, measured, "; ".join(broken))


@dataclass
class Drive:
    """One worker that promotes where somebody deserves it and asks for a new point elsewhere."""

    made: Made
    searcher: Searcher
    rungs: Rungs = field(init=False)
    newest: dict[int, SearchTrial] = field(default_factory=dict)
    facts: list[tuple[int, float, list[float] | None]] = field(default_factory=list)
    history: list[tuple[int, float, Point]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rungs = Rungs(self.made[2].rungs, FULL)

    def step(self) -> None:
        promoted = self.rungs.promotable()
        if promoted:
            number, budget = promoted
            trial = replace(self.newest[number], outcome=None)
        else:
            number, budget = len(self.newest), self.rungs.budgets[0]
            asked = self.searcher.ask(number)
            assert asked is not None
            trial = asked
        outcome = judge(self.made, number, trial.point, budget)
        self.searcher.tell(trial, outcome, budget / FULL)
        self.newest[number] = stored(replace(trial, outcome=outcome, share=budget / FULL))
        self.note(number, budget, outcome)
        self.history.append((number, budget, trial.point))

    def note(self, number: int, budget: float, outcome: Outcome) -> None:
        if outcome.state is State.INFEASIBLE and budget < FULL:
            return
        known = outcome.state in (State.STOPPED, State.COMPLETE)
        names = [objective.name for objective in self.made[2].objectives]
        losses = [outcome.measurements[name] for name in names] if known else None
        self.facts.append((number, budget, losses))
        self.rungs.note(*self.facts[-1])

    def killed_and_resumed(self) -> Drive:
        """Another process, which knows what the store knows: the newest result of each trial."""
        again = Drive(self.made, searcher(self.made), newest=dict(self.newest), facts=list(self.facts))
        again.searcher.feed(reversed(self.newest.values()))
        for fact in reversed(self.facts):
            again.rungs.note(*fact)
        return again


def run(drive: Drive, steps: int) -> Drive:
    for _ in range(steps):
        drive.step()
    return drive


@pytest.mark.parametrize("settings", SAMPLERS, ids=lambda each: "-".join(map(str, each.values())))
def test_a_search_with_rungs_killed_and_resumed_is_the_same_search(make: Make, settings: dict[str, Any]) -> None:
    made = make(**settings, **PENALTIES, **RUNGS)
    straight = run(Drive(made, searcher(made)), 70)
    first = run(Drive(made, searcher(made)), 31)
    second = run(first.killed_and_resumed(), 20)
    third = run(second.killed_and_resumed(), 19)
    assert first.history + second.history + third.history == straight.history
    assert {budget for _, budget, _ in straight.history} == {1, 3, 9}
    states = {past.outcome.state for past in straight.newest.values() if past.outcome}
    assert states >= {State.STOPPED, State.COMPLETE, State.DIVERGED, State.FAILED}


def test_a_search_by_gaussian_processes_with_rungs_resumes_too(make: Make) -> None:
    made = make(("svd",), sampler="gp", options={"n_startup_trials": 3}, seeds=FEW_SEEDS, **RUNGS)
    straight = run(Drive(made, searcher(made)), 8)
    first = run(Drive(made, searcher(made)), 7)
    assert (first.history + run(first.killed_and_resumed(), 1).history) == straight.history
    assert straight.newest[len(straight.newest) - 1].label == "gp"


def test_a_search_whose_first_rung_is_before_training_resumes_too(make: Make) -> None:
    made = make(sampler="auto", seeds=LADDERS, **PENALTIES, rungs={"first": 0, "factor": 3})
    straight = run(Drive(made, searcher(made)), 50)
    first = run(Drive(made, searcher(made)), 23)
    assert first.history + run(first.killed_and_resumed(), 27).history == straight.history
    assert {budget for _, budget, _ in straight.history} == {0, FULL}


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_what_is_measured_before_any_training_is_told(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=FEW_SEEDS, rungs={"first": 0})
    told, untold = searcher(made), searcher(made)
    for number in range(12):
        trials = [each.ask(number) for each in (told, untold)]
        assert trials[0] is not None
        told.tell(trials[0], replace(measure(made[1], trials[0].point), state=State.STOPPED), 0.0)
        if trials[0] != trials[1]:
            return
    pytest.fail("the results made no difference")


def test_a_searcher_has_seeds_until_each_has_been_asked(make: Make) -> None:
    made = make(sampler="auto", seeds=FEW_SEEDS, **RUNGS)
    asked, labels = searcher(made), []
    while asked.has_seeds:
        trial = asked.ask(len(labels))
        assert trial is not None
        labels.append(trial.label)
    assert labels[0] == "dense"
    assert len(labels) == len(set(labels)) == 4
    after = asked.ask(len(labels))
    assert after is not None
    assert after.label == "auto"
    again = searcher(made)
    again.feed([trial])
    assert again.has_seeds


FINAL = [
    Outcome(State.COMPLETE, {"error": 0.1, "macs": 5.0}),
    Outcome(State.INFEASIBLE, {"error": 0.1, "macs": 5.0}, "error <= 0 does not hold"),
    Outcome(State.DIVERGED, {"macs": 5.0}),
    Outcome(State.FAILED),
]


@pytest.mark.parametrize("final", FINAL, ids=lambda each: each.state)
@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3", "random"])
def test_a_searcher_counts_the_newest_result_of_a_trial(make: Make, sampler: str, final: Outcome) -> None:
    """As if the trial had never been told before; and after the end nothing is told any more."""
    options = {"population_size": 4} if "nsga" in sampler else {}
    made = make(sampler=sampler, options=options, seeds=FEW_SEEDS, **RUNGS)
    asked = [run(Drive(made, searcher(made)), 24) for _ in range(2)]
    number = len(asked[0].newest)
    trials = [drive.searcher.ask(number) for drive in asked]
    assert trials[0] == trials[1]
    stages = [
        (Outcome(State.STOPPED, {"error": 0.9, "macs": 5.0}), 1 / 9),
        (Outcome(State.STOPPED, {"error": 0.5, "macs": 5.0}), 1 / 3),
        (Outcome(State.STOPPED, {"error": 0.9, "macs": 5.0}), 1 / 9),  # old news
        (final, 1.0),
        (Outcome(State.STOPPED, {"error": 0.0, "macs": 0.0}), 1 / 3),
        (Outcome(State.COMPLETE, {"error": 0.0, "macs": 0.0}), 1.0),
    ]
    often, once = (drive.searcher for drive in asked)
    assert trials[0] is not None
    for outcome, share in stages:
        often.tell(trials[0], outcome, share)
    once.tell(trials[0], final)
    for later in range(number + 1, number + 9):
        mine, other = often.ask(later), once.ask(later)
        assert mine == other
        assert mine is not None
        for each in (often, once):
            each.tell(mine, judge(made, later, mine.point, 1.0), 1 / 9)


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_feeding_a_searcher_again_changes_nothing_and_completes_stopped_trials(make: Make, sampler: str) -> None:
    made = make(sampler=sampler, seeds=LADDERS, **RUNGS)
    trials = list(run(Drive(made, searcher(made)), 30).newest.values())
    at_first = [replace(past, outcome=judge(made, past.number, past.point, 1.0), share=1 / 9) for past in trials]
    in_flight = [replace(past, outcome=None, share=1.0) for past in trials]
    often, once = searcher(made), searcher(made)
    for known in (at_first, in_flight, trials, at_first, trials):
        often.feed(known)
    once.feed(trials)
    assert often.ask(len(trials)) == once.ask(len(trials))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_learns_from_how_far_trials_came(make: Make, sampler: str) -> None:
    """Nothing reaches the full budget; those with a small error come further."""
    seeds = {"dense": False, "fractions": [], "weakenings": []}

    def late(name: str) -> float:
        options = {"population_size": 10} if "nsga" in name else {}
        made = make(sampler=name, options=options, seeds=seeds, **RUNGS)
        asked, errors = searcher(made), []
        for number in range(90):
            trial = asked.ask(number)
            assert trial is not None
            outcome = replace(measure(made[1], trial.point), state=State.STOPPED)
            errors.append(outcome.measurements["error"])
            asked.tell(trial, outcome, 1 / 3 if errors[-1] < 0.2 else 1 / 9)
        return sum(errors[60:]) / 30

    assert late(sampler) < 0.8 * late("random")


SETTINGS = SearchSettings.model_validate({**RUNGS, "constraints": ["error <= 0.2"]})


def told(results: Results, state: State, share: float = 1.0, **measured: float) -> Told:
    return results.learn(str(sorted(measured.items())), Outcome(state, measured), share).popitem()[1]


def total(each: Told) -> float:
    """As Optuna adds violations up."""
    return sum(violation for violation in each.violations.values() if violation > 0)


def test_the_full_budget_is_a_constraint() -> None:
    results = Results(SETTINGS, {})
    complete = told(results, State.COMPLETE, error=0.1, macs=9)
    further = told(results, State.STOPPED, 1 / 3, error=0.1, macs=9)
    stopped = told(results, State.STOPPED, 1 / 9, error=0.05, macs=1)
    diverged = told(results, State.DIVERGED, 1 / 3, macs=2)
    refused = told(results, State.INFEASIBLE, macs=8)
    assert total(complete) == 0 < total(further) < total(stopped) < total(diverged) == total(refused) == 1
    assert further.violations[BUDGET] == pytest.approx(2 / 3)
    assert stopped.losses == (0.05, 1)
    assert diverged.losses == (0.1, 9)
    missed = told(results, State.INFEASIBLE, error=0.22, macs=8)
    assert total(missed) == pytest.approx(0.1)


def test_results_without_rungs_have_no_budget_constraint() -> None:
    results = Results(SearchSettings(), {})
    assert told(results, State.DIVERGED, macs=2).violations == {}
    assert told(results, State.COMPLETE, error=0.1, macs=2).violations == {}


def test_a_trial_that_lacks_a_loss_is_told_again_when_a_worse_one_is_seen() -> None:
    results = Results(SETTINGS, {})
    early = results.learn("early", Outcome(State.DIVERGED), 1 / 9)
    assert early["early"].losses is None
    assert list(results.learn("stopped", Outcome(State.STOPPED, {"error": 5, "macs": 5}), 1 / 9)) == ["stopped"]
    now = results.learn("complete", Outcome(State.COMPLETE, {"error": 1, "macs": 2}), 1.0)
    assert now["early"].losses == (1, 2)
    worse = results.learn("worse", Outcome(State.COMPLETE, {"error": 0.5, "macs": 3}), 1.0)
    assert worse["early"].losses == (1, 3)
    better = results.learn("better", Outcome(State.COMPLETE, {"error": 0.5, "macs": 1}), 1.0)
    assert list(better) == ["better"]
    assert results.learn("early", Outcome(State.FAILED), 1.0) == {"early": Told(None, {})}
    assert list(results.learn("worst", Outcome(State.COMPLETE, {"error": 9, "macs": 9}), 1.0)) == ["worst"]


def test_a_bound_on_what_training_changes_is_judged_at_the_full_budget() -> None:
    settings = SearchSettings.model_validate({**RUNGS, "constraints": ["error <= 0.2", "macs <= 4"]})
    results = Results(settings, {})
    stopped = told(results, State.STOPPED, 1 / 9, error=0.4, macs=8)
    assert stopped.violations == {"error <= 0.2": 0.0, "macs <= 4": 1.0, BUDGET: pytest.approx(8 / 9)}
    complete = told(results, State.COMPLETE, error=0.4, macs=8)
    assert complete.violations == {"error <= 0.2": pytest.approx(1.0), "macs <= 4": 1.0, BUDGET: 0.0}
