from __future__ import annotations

import pytest

from rank_search.errors import StoreError
from rank_search.point import Execution, Outcome, State
from rank_search.store import Claim, Store, StudyRecord
from tests.store.store_tools import BEGIN, END, a_point, anybody_else, complete, finish


def take(store: Store, study: StudyRecord, worker: str = "w") -> Claim:
    claim = store.claim(study, a_point(), worker, {"label": "ladder", "limit": float("inf")})
    assert claim is not None
    return claim


def record(store: Store, study: StudyRecord, claim: Claim, **measured: float):
    store.record(study, claim, complete(**measured), Execution(1, BEGIN, END))
    return store.trial(study, claim.number)


def test_a_claim_comes_back_as_it_was_made(store: Store, study: StudyRecord) -> None:
    claim = take(store, study)
    assert store.claims(study) == [claim]
    assert (claim.number, claim.attempt, claim.worker) == (0, 1, "w")
    assert claim.sampler == {"label": "ladder", "limit": float("inf")}


def test_numbers_of_claims_count_up_and_are_never_given_twice(store: Store, study: StudyRecord) -> None:
    first, second = take(store, study), take(store, study)
    record(store, study, second, a=1, b=1)
    assert store.next_number(study) == 2
    third = take(store, study)
    record(store, study, first, a=1, b=1)
    record(store, study, third, a=1, b=1)
    fourth = take(store, study)
    assert [first.number, second.number, third.number, fourth.number] == [0, 1, 2, 3]


def test_a_point_is_claimed_once(store: Store, study: StudyRecord) -> None:
    point = a_point()
    assert store.claim(study, point, "w") is not None
    assert store.claim(study, point, "v") is None


def test_no_claim_is_made_once_all_numbers_are_given(store: Store, study: StudyRecord) -> None:
    first = take(store, study)
    assert store.claim(study, a_point(), "w", below=1) is None
    assert store.claim(study, a_point(), "w", below=2) is not None
    record(store, study, first, a=1, b=1)
    assert store.claim(study, a_point(), "w", below=2) is None


@pytest.mark.parametrize("state", list(State))
def test_a_point_that_was_tried_is_not_claimed_again(store: Store, study: StudyRecord, state: State) -> None:
    point = a_point()
    finish(store, study, Outcome(state, {"a": 1, "b": 1}), point=point)
    assert store.claim(study, point, "w") is None


def test_a_live_claim_is_not_taken_over(store: Store, study: StudyRecord) -> None:
    take(store, study)
    assert store.take_over(study, "v") is None


def test_an_expired_claim_is_taken_over_once_lowest_number_first(store: Store, study: StudyRecord) -> None:
    old, later = take(store, study), take(store, study)
    taken = store.take_over(study, "v", anybody_else("v"))
    assert taken == (Claim(old.number, old.point, "v", 2, old.started, old.sampler, budget=study.budget), "w")
    next_one, _ = store.take_over(study, "v", anybody_else("v"))
    assert next_one.number == later.number
    assert store.take_over(study, "v", anybody_else("v")) is None


def test_a_claim_of_a_dead_worker_is_taken_over_at_once(store: Store, study: StudyRecord) -> None:
    take(store, study, "alive")
    orphan = take(store, study, "dead")
    taken, former = store.take_over(study, "v", lambda claim: claim.worker == "dead")
    assert (taken.number, former) == (orphan.number, "dead")


def test_a_heartbeat_keeps_a_claim_and_tells_which_are_lost(store: Store, study: StudyRecord) -> None:
    kept, lost, done = take(store, study), take(store, study, "dead"), take(store, study)
    assert store.take_over(study, "v", lambda claim: claim.worker == "dead")
    record(store, study, done, a=1, b=1)
    before = store.now()
    assert store.heartbeat(study, [kept, lost, done]) == [lost, done]

    def is_silent(claim: Claim) -> bool:
        return claim.heartbeat < before

    taken, former = store.take_over(study, "u", is_silent)
    assert (taken.number, former) == (lost.number, "v")  # which sent no heartbeat since
    assert store.take_over(study, "u", is_silent) is None


def test_a_released_claim_is_had_at_once(store: Store, study: StudyRecord) -> None:
    claim = take(store, study)
    store.release(study, [claim])
    assert store.heartbeat(study, [claim]) == [claim]
    taken, former = store.take_over(study, "v")
    assert (taken.number, taken.attempt, taken.point, former) == (claim.number, 1, claim.point, "")
    store.release(study, [claim])  # too late: it is somebody else's
    assert store.claims(study) == [taken]


def test_only_the_first_result_of_a_claim_is_recorded(store: Store, study: StudyRecord) -> None:
    slow = take(store, study, "slow")
    fast, _ = store.take_over(study, "fast", anybody_else("fast"))
    first = record(store, study, fast, a=1, b=1)
    again = record(store, study, slow, a=2, b=2)
    assert again == first
    assert (first.worker, first.attempt) == ("fast", 2)
    assert store.trials(study) == [first]
    assert store.claims(study) == []
    assert store.check(study) == []


def test_a_lost_claim_may_still_be_recorded_first(store: Store, study: StudyRecord) -> None:
    slow = take(store, study, "slow")
    fast, _ = store.take_over(study, "fast", anybody_else("fast"))
    first = record(store, study, slow, a=1, b=1)
    assert record(store, study, fast, a=2, b=2) == first
    assert first.worker == "slow"


def test_only_a_claimed_point_can_be_recorded(store: Store, study: StudyRecord) -> None:
    claim = take(store, study)
    with pytest.raises(StoreError, match="no claim 99"):
        record(store, study, Claim(99, a_point(), "w", 1, BEGIN, budget=2.0), a=1, b=1)
    with pytest.raises(StoreError, match="no claim 0 for this point"):
        record(store, study, Claim(claim.number, a_point(), "w", 1, BEGIN, budget=2.0), a=1, b=1)
    assert store.claims(study) == [claim]
