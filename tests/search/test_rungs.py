"""Early stopping: who goes on, in every order of events; and what is said about settings that cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rank_search.errors import StudyFileError, StudyMismatchError
from rank_search.search import Rungs, SearchSettings, require_rungs_fit
from rank_search.search.epsilon_net import farthest
from rank_search.search.rungs import RungSettings
from rank_search.study import load_study
from tests.pareto.test_dominance import peeled
from tests.store.store_tools import beats

Measured = tuple[int, ...] | None
many = settings(max_examples=60, deadline=None)

FACTS = st.tuples(*[st.integers(0, 8)] * 2) | st.none()


@dataclass
class Stream:
    """A search that goes on whenever somebody deserves it, and else starts a new trial."""

    rungs: Rungs
    supply: Iterator[Measured]
    at: list[dict[int, Measured]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at = [{} for _ in self.rungs.budgets]

    def step(self) -> tuple[int, float] | None:
        """What went on, if anything did."""
        promoted = self.rungs.promotable()
        number, budget = promoted or (len(self.at[0]), self.rungs.budgets[0])
        self.measure(number, budget, next(self.supply))
        return promoted

    def measure(self, number: int, budget: float, losses: Measured) -> None:
        self.at[self.rungs.budgets.index(budget)][number] = losses
        self.rungs.note(number, budget, losses)

    def facts(self) -> list[tuple[int, float, Measured]]:
        pairs = zip(self.rungs.budgets, self.at, strict=True)
        return [(number, budget, losses) for budget, rung in pairs for number, losses in rung.items()]


def expected(stream: Stream, factor: float) -> tuple[int, float] | None:
    """By the definition, from scratch."""
    for index in reversed(range(len(stream.at) - 1)):
        rung, gone = stream.at[index], {each for rung in stream.at[index + 1 :] for each in rung}
        measured = sorted((number, losses) for number, losses in rung.items() if losses is not None)
        levels = dict(zip([n for n, _ in measured], peeled([losses for _, losses in measured]), strict=True))
        waiting = [levels[number] for number in levels if number not in gone]
        if len(gone) < math.floor(len(rung) / factor) and waiting:
            front = [(number, losses) for number, losses in measured if levels[number] == min(waiting)]
            went = np.array([number in gone for number, _ in front])
            found = farthest(np.array([losses for _, losses in front], dtype=float).T, went)
            return front[found][0], stream.rungs.budgets[index + 1]
    return None


@many
@given(facts=st.lists(FACTS, min_size=5, max_size=60), factor=st.sampled_from([1.5, 2, 3]))
def test_every_promotion_is_the_one_of_the_definition(facts: list[Measured], factor: float) -> None:
    stream = Stream(Rungs(RungSettings(first=1, factor=factor), 8), iter(facts))
    for _ in facts:
        wanted = expected(stream, factor)
        assert stream.step() == wanted


@many
@given(facts=st.lists(FACTS, min_size=5, max_size=80), factor=st.sampled_from([1.5, 2, 3]))
def test_a_rung_lets_its_share_go_on_and_only_its_best(facts: list[Measured], factor: float) -> None:
    stream = Stream(Rungs(RungSettings(first=1, factor=factor), 8), iter(facts))
    for _ in facts:
        before = [dict(rung) for rung in stream.at]
        if promoted := stream.step():
            number, budget = promoted
            target = stream.rungs.budgets.index(budget)
            own = before[target - 1].pop(number)
            assert number not in before[target]
            assert own is not None
            stayed = [losses for each, losses in before[target - 1].items() if losses and each not in before[target]]
            assert not any(beats(losses, own) for losses in stayed)
        for lower, higher in zip(stream.at[:-1], stream.at[1:], strict=True):
            assert higher.keys() <= lower.keys()
            assert len(higher) <= math.floor(len(lower) / factor)


@many
@given(facts=st.lists(FACTS, min_size=5, max_size=60), factor=st.sampled_from([1.5, 3, 20]))
def test_before_any_training_all_that_is_unbeaten_goes_on_and_at_least_a_share(
    facts: list[Measured], factor: float
) -> None:
    rungs, losses = Rungs(RungSettings(first=0, factor=factor), 8), dict(enumerate(facts))
    went: list[int] = []
    for number, each in losses.items():
        rungs.note(number, 0, each)
        while found := rungs.promotable():
            went.append(found[0])
            rungs.note(found[0], 8, losses[found[0]])
            seen = {other: its for other, its in losses.items() if other <= number and its is not None}
            has_room = len(went) <= math.floor((number + 1) / factor)
            assert has_room or not _is_matched(went[-1], seen)
        known = {other: its for other, its in losses.items() if other <= number and its is not None}
        assert {other for other in known if not _is_matched(other, known)} <= set(went)
        assert len(went) >= min(len(known), math.floor((number + 1) / factor))
    assert len(set(went)) == len(went)


def _is_matched(number: int, known: dict[int, tuple[int, ...]]) -> bool:
    """Whether another trial is as good everywhere; of equal ones the first is not."""
    own = known[number]
    return any(
        all(a <= b for a, b in zip(its, own, strict=True)) and (its != own or other < number)
        for other, its in known.items()
        if other != number
    )


@many
@given(facts=st.lists(FACTS, min_size=5, max_size=60), data=st.data())
def test_promotions_do_not_depend_on_the_order_of_noting(facts: list[Measured], data: st.DataObject) -> None:
    """Nor does noting twice, nor what was asked in between."""
    setting = RungSettings(first=1, factor=2)
    stream = Stream(Rungs(setting, 8), iter(facts))
    for _ in facts:
        stream.step()
    other = Rungs(setting, 8)
    for number, budget, losses in data.draw(st.permutations(stream.facts() + stream.facts()[:10])):
        other.note(number, budget, losses)
        if data.draw(st.booleans()):
            other.promotable()
    assert other.promotable() == stream.rungs.promotable()


@many
@given(
    facts=st.lists(FACTS, min_size=5, max_size=60),
    scale=st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)),
)
def test_promotions_do_not_depend_on_the_units_of_losses(facts: list[Measured], scale: tuple[float, float]) -> None:
    setting = RungSettings(first=1, factor=2)
    stream, scaled = Stream(Rungs(setting, 8), iter(facts)), Rungs(setting, 8)
    for _ in facts:
        assert scaled.promotable() == stream.rungs.promotable()
        stream.step()
        for number, budget, losses in stream.facts():
            units = losses and [loss * unit for loss, unit in zip(losses, scale, strict=True)]
            scaled.note(number, budget, units)


@pytest.mark.parametrize("best", [0, 1, 17, 40])
def test_the_one_best_of_a_constant_stream_ends_at_the_full_budget(best: int) -> None:
    rungs = Rungs(RungSettings(first=1), 9)
    stream = Stream(rungs, iter([]))
    while len(stream.at[0]) < 70:
        number, budget = rungs.promotable() or (len(stream.at[0]), 1.0)
        stream.measure(number, budget, (0, 0) if number == best else (1, 1))
    assert best in stream.at[-1]
    assert len(stream.at[-1]) <= 70 / 9


def test_promotions_with_several_objectives_spread_over_the_front() -> None:
    rungs = Rungs(RungSettings(first=1, factor=2), 4)
    front = [(0.0, 900.0), (0.1, 600.0), (0.4, 500.0), (1.0, 0.0)]
    for number, losses in enumerate([*front, *[(2.0, 1000.0)] * 4]):
        rungs.note(number, 1, losses)
    went = []
    while found := rungs.promotable():
        number, budget = found
        if budget == 2:
            went.append(number)
        rungs.note(number, budget, front[number])
    # the least first loss, the other end, and then what is farthest from both
    assert went == [0, 3, 2, 1]


def test_a_single_rung_never_promotes() -> None:
    rungs = Rungs(None, 5)
    assert rungs.budgets == (5.0,)
    for number in range(20):
        rungs.note(number, 5, [number, -number])
        assert rungs.promotable() is None


def test_failed_trials_count_at_their_rung_and_never_go_on() -> None:
    rungs = Rungs(RungSettings(first=1), 9)
    lost: Sequence[Sequence[float] | None] = [None, [math.nan, 1.0], [math.inf, 1.0]]
    for number, losses in enumerate(lost * 2):
        rungs.note(number, 1, losses)
    assert rungs.promotable() is None
    rungs.note(6, 1, [1.0, 1.0])
    assert rungs.promotable() == (6, 3.0)
    rungs.note(6, 3, None)  # it fails on the way
    rungs.note(7, 1, [2.0, 2.0])
    assert rungs.promotable() == (7, 3.0)


def test_a_trial_in_flight_has_gone_on_but_has_not_arrived() -> None:
    rungs = Rungs(RungSettings(first=1), 9)
    for number in range(6):
        rungs.note(number, 1, [number])
    assert rungs.promotable() == (0, 3.0)
    assert rungs.promotable(busy={0, 99}) == (1, 3.0)
    assert rungs.promotable(busy=[0, 1]) is None
    rungs.note(0, 3, [0])
    rungs.note(1, 3, [1])
    rungs.note(2, 3, [2])
    assert rungs.promotable() == (0, 9.0)
    assert rungs.promotable(busy={0}) is None


def test_a_result_noted_anew_takes_the_place_of_the_old_one() -> None:
    rungs = Rungs(RungSettings(first=1), 9)
    for number in range(3):
        rungs.note(number, 1, [number])
    assert rungs.promotable() == (0, 3.0)
    rungs.note(0, 1, [5])
    assert rungs.promotable() == (1, 3.0)
    rungs.note(1, 1, None)
    assert rungs.promotable() == (2, 3.0)


@pytest.mark.parametrize(
    ("first", "factor", "full", "budgets"),
    [
        (1, 3, 9, (1, 3, 9)),
        (1, 3, 10, (1, 3, 9, 10)),
        (0.5, 4, 2.5, (0.5, 2, 2.5)),
        (4, 3, 5, (4, 5)),
        (0.1, 3, 0.3, (0.1, 0.3)),  # 0.1 × 3 is a little more than 0.3
        (0.7, 3, 6.3, (0.7, 2.1, 6.3)),
        (0, 3, 9, (0, 9)),  # before any training, and after all of it
    ],
)
def test_budgets_of_rungs_grow_by_the_factor_up_to_the_full_one(
    first: float, factor: float, full: float, budgets: tuple[float, ...]
) -> None:
    found = Rungs(RungSettings(first=first, factor=factor), full).budgets
    assert found == pytest.approx(budgets)
    assert found[-1] == full
    assert sorted(set(found)) == list(found)


def test_a_budget_that_is_no_rung_is_refused() -> None:
    rungs = Rungs(RungSettings(first=1), 9)
    with pytest.raises(StudyMismatchError, match=r"Trial 7 .* at 2 epochs, which is no rung; the rungs are 1, 3, 9\."):
        rungs.note(7, 2, [0.5])


@pytest.mark.parametrize(
    ("first", "factor", "full", "complaint"),
    [
        (9, 3, 9, r"\[search.rungs\] first = 9 is not below the full budget, \[training\] epochs = 9\."),
        (12, 3, 9, r"first = 12 is .* \[training\] epochs = 9\. Make it smaller"),
        (1, 3, 0, r"epochs = 0\."),
        (0, 3, 0, r"first = 0 is not below the full budget, \[training\] epochs = 0\."),
        (1, 1.0001, 9, r"first = 1 and factor = 1.0001 make 21975 rungs up to .* epochs = 9; at most 20"),
    ],
)
def test_rungs_that_do_not_fit_the_full_budget_are_refused(
    first: float, factor: float, full: float, complaint: str
) -> None:
    setting = RungSettings(first=first, factor=factor)
    for build in (require_rungs_fit, Rungs):
        with pytest.raises(StudyFileError, match=complaint):
            build(setting, full)
    require_rungs_fit(None, full)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "first\n  Field required"),
        ({"first": -1}, "greater than or equal to 0"),
        ({"first": math.inf}, "finite number"),
        ({"first": 1, "factor": 1}, "greater than 1"),
        ({"first": 1, "factor": math.nan}, "greater than 1|finite number"),
        ({"first": 1, "eta": 3}, "Extra inputs"),
    ],
)
def test_impossible_rung_settings_are_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint) as caught:
        SearchSettings.model_validate({"rungs": given})
    assert caught.value.error_count() == 1


def test_rungs_are_read_from_a_study_file(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    begin = '[study]\nname = "mine"\n[task]\nfactory = "task.py:task"\n'
    file.write_text(begin + "[search.rungs]\nfirst = 0.5\nfactor = 2\n", encoding="utf-8")
    study = load_study(file)
    assert study.search.rungs == RungSettings(first=0.5, factor=2)
    assert SearchSettings.model_validate(study.search.model_dump(mode="json")) == study.search
    file.write_text(begin + "[search.rungs]\nfirst = -1\nfactr = 2\n", encoding="utf-8")
    with pytest.raises(StudyFileError) as raised:
        load_study(file)
    assert "search.rungs.first: input should be greater than or equal to 0; found -1" in str(raised.value)
    assert "search.rungs.factr: there is no such key; did you mean 'factor'?" in str(raised.value)


def test_rungs_are_off_by_default_and_described() -> None:
    assert SearchSettings().rungs is None
    assert all(each.description for each in RungSettings.model_fields.values())
