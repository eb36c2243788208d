from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rank_search.point import Execution, Outcome, State
from rank_search.store import Activity, Store, StudyRecord
from tests.store.store_tools import BEGIN, END, a_point, a_record, complete, finish, go_on, stopped

MINUTE = timedelta(minutes=1)


def end(store: Store, study: StudyRecord, finished: datetime, worker: str, outcome: Outcome) -> None:
    claim = store.claim(study, a_point(), "driver")
    assert claim is not None
    store.record(study, claim, outcome, Execution(0, BEGIN, finished, worker))


def test_a_study_without_trials(store: Store, study: StudyRecord) -> None:
    assert store.activity(study, BEGIN) == Activity({}, (), 0, {}, None)


def test_activity_counts_trials_and_lists_claims(store: Store, study: StudyRecord) -> None:
    end(store, study, END, "w1", complete(a=1, b=1))
    end(store, study, END + MINUTE, "w1", complete(a=1, b=1))
    end(store, study, END + 2 * MINUTE, "w2", Outcome(State.FAILED))
    end(store, study, END + 3 * MINUTE, "w1", Outcome(State.STOPPED, {"a": 1.0, "b": 1.0}))
    claim = store.claim(study, a_point(), "driver")
    assert claim is not None
    found = store.activity(study, since=END + MINUTE)
    assert found.trials == {State.COMPLETE: 2, State.FAILED: 1, State.STOPPED: 1}
    assert found.claims == (claim,)
    assert (found.finished, found.by_worker) == (3, {"w1": 2, "w2": 1})
    assert found.last_finished == END + 3 * MINUTE
    assert store.activity(study, since=END + 4 * MINUTE).finished == 0


def test_a_promoted_trial_counts_once(store: Store, study: StudyRecord) -> None:
    row = finish(store, study, stopped(a=1, b=1), budget=1.0)
    go_on(store, study, row.number, complete(a=1, b=1))
    assert store.activity(study, BEGIN).trials == {State.COMPLETE: 1}


def test_claims_say_when_their_workers_were_alive(store: Store, study: StudyRecord) -> None:
    claim = store.claim(study, a_point(), "driver")
    assert claim is not None
    before = datetime.now(UTC)
    assert store.heartbeat(study, [claim]) == []
    (found,) = store.activity(study, BEGIN).claims
    assert claim.heartbeat <= before <= found.heartbeat <= datetime.now(UTC)


def test_studies_have_activities_of_their_own(store: Store, study: StudyRecord) -> None:
    finish(store, store.join(a_record()), complete(a=1, b=1))
    assert store.activity(study, BEGIN).trials == {}


def test_the_target_of_the_drivers_is_kept(store: Store, study: StudyRecord) -> None:
    assert study.target is None
    for target in (100, 50):
        store.set_target(study, target)
        assert store.study(study.name).target == target


def test_where_the_files_are_is_kept(store: Store) -> None:
    joined = store.join(a_record(artifacts="s3://bucket/prefix"))
    assert store.study(joined.name).artifacts == "s3://bucket/prefix"
    assert store.join(a_record(name=joined.name)).artifacts == "s3://bucket/prefix"
