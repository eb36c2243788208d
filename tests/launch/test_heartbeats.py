"""Who is silent, by progress seen and a clock of one's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from rank_search.launch.heartbeats import EXPIRED, HEARTBEAT, Pulses
from rank_search.store import Claim
from tests.store.store_tools import BEGIN, a_point

BEAT = HEARTBEAT.total_seconds()
LIMIT = EXPIRED.total_seconds()


class Clock:
    """One that only the test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def a_claim(number: int = 0, worker: str = "other") -> Claim:
    return Claim(number, a_point(), worker, 1, BEGIN, budget=1.0, heartbeat=BEGIN)


def beaten(claim: Claim, seconds: float) -> Claim:
    return replace(claim, heartbeat=claim.heartbeat + timedelta(seconds=seconds))


def look(pulses: Pulses, clock: Clock, claim: Claim, seconds: float, every: float = BEAT) -> None:
    """Look at a claim that nobody keeps alive, for so many seconds."""
    for _ in range(round(seconds / every)):
        clock.seconds += every
        pulses.look([claim])


def test_a_claim_that_stands_still_is_silent_after_a_while() -> None:
    clock, claim = Clock(), a_claim()
    pulses = Pulses(clock)
    assert not pulses.is_silent(claim), "it was never looked at"
    pulses.look([claim])
    look(pulses, clock, claim, LIMIT)
    assert not pulses.is_silent(claim)
    look(pulses, clock, claim, BEAT)
    assert pulses.is_silent(claim)


@given(st.lists(st.integers(-10_000, 10_000).filter(bool), min_size=1, max_size=20))
def test_any_change_of_a_heartbeat_is_life_wherever_its_clock_goes(steps: list[int]) -> None:
    clock, claim = Clock(), a_claim()
    pulses = Pulses(clock)
    for step in steps:
        look(pulses, clock, claim, LIMIT)
        claim = beaten(claim, step)
        pulses.look([claim])
        assert not pulses.is_silent(claim)


@given(st.floats(2 * BEAT, 1e9))
def test_a_pause_between_looks_is_no_silence(away: float) -> None:
    """An outage of the store, a machine that slept: the others could not beat either."""
    clock, claim = Clock(), a_claim()
    pulses = Pulses(clock)
    pulses.look([claim])
    clock.seconds += away
    pulses.look([claim])
    assert not pulses.is_silent(claim)
    look(pulses, clock, claim, LIMIT - 2 * BEAT)
    assert not pulses.is_silent(claim), "the others have as long as ever to come back, but for one look"
    look(pulses, clock, claim, BEAT)
    assert pulses.is_silent(claim)


def test_a_claim_that_was_handed_on_or_beaten_since_is_another() -> None:
    clock, claim = Clock(), a_claim()
    pulses = Pulses(clock)
    pulses.look([claim])
    look(pulses, clock, claim, 2 * LIMIT)
    assert pulses.is_silent(claim)
    for changed in (beaten(claim, 1), replace(claim, worker="third"), replace(claim, attempt=2)):
        assert not pulses.is_silent(changed)
        pulses.look([changed])
        assert not pulses.is_silent(changed)
        pulses.look([claim])
        look(pulses, clock, claim, 2 * LIMIT)


def test_claims_are_looked_at_one_by_one() -> None:
    clock, quiet, lively = Clock(), a_claim(1), a_claim(2)
    pulses = Pulses(clock)
    for second in range(0, 200, 10):
        clock.seconds += 10
        lively = beaten(lively, second + 1)
        pulses.look([quiet, lively])
    assert pulses.is_silent(quiet)
    assert not pulses.is_silent(lively)
    pulses.look([])
    assert not pulses.is_silent(quiet), "it has gone"
