"""The mirror that optuna-dashboard looks at: up to date, each trial once, at the place of its number."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from rank_search.errors import StoreAwayError
from rank_search.observe import following
from rank_search.observe import optuna_storage as mirror_module
from rank_search.observe.optuna_storage import Mirror, mirrored
from rank_search.point import Artifact, Execution, Outcome, State
from rank_search.search import SearchSettings, Space
from rank_search.store import Claim, Store, StudyRecord
from tests.store.store_tools import a_point, a_record
from tests.story.forks import wait_for

SPACE = Space((), penalties=SearchSettings(entropy={"low": 0.1, "high": 1.0}).penalties)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.sqlite", create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return begin(store, "mine")


def begin(store: Store, name: str, *directions: str) -> StudyRecord:
    return store.join(a_record(*directions, name=name, space={"coordinates": SPACE.to_json()}))


def claim(store: Store, study: StudyRecord, budget: float | None = None) -> Claim:
    taken = store.claim(study, a_point(), "driver:1", {"coordinates": {"entropy": 0.5}, "label": "x"}, budget=budget)
    assert taken is not None
    return taken


def finish(
    store: Store, study: StudyRecord, held: Claim, state: State, *artifacts: Artifact, **measured: float
) -> None:
    now = datetime.now(UTC)
    store.record(
        study,
        held,
        Outcome(state, measured, reason="" if measured else "for a reason", artifacts=artifacts),
        Execution(1, now - timedelta(seconds=2), now, "there:7"),
    )


def trials(mirror: Mirror, study_id: int = 0) -> list[FrozenTrial]:
    return mirror.get_all_trials(study_id)


def states(mirror: Mirror, study_id: int = 0) -> str:
    return " ".join(trial.state.name.lower() for trial in trials(mirror, study_id))


def attributes(mirror: Mirror, name: str) -> list[Any]:
    return [trial.user_attrs.get(name) for trial in trials(mirror)]


def test_it_follows_a_running_study(store: Store, study: StudyRecord) -> None:
    mirror = mirrored(store)
    assert states(mirror) == ""
    first, second, third = (claim(store, study) for _ in range(3))
    mirror.refresh(store)
    assert states(mirror) == "running running running"
    finish(store, study, second, State.COMPLETE, a=1.0, b=2.0)
    mirror.refresh(store)
    assert states(mirror) == "running complete running"
    finish(store, study, third, State.FAILED)
    finish(store, study, first, State.INFEASIBLE, a=1.0)
    mirror.refresh(store)
    assert states(mirror) == "pruned complete fail"
    assert [trial.number for trial in trials(mirror)] == attributes(mirror, "trial") == [0, 1, 2]
    assert trials(mirror)[1].values == [1.0, 2.0]
    assert all(trial.params == {"entropy": 0.5} for trial in trials(mirror))
    assert attributes(mirror, "worker") == ["there:7"] * 3


def test_a_promoted_trial_is_there_once(store: Store, study: StudyRecord) -> None:
    mirror = mirrored(store)
    finish(store, study, claim(store, study, budget=1.0), State.STOPPED, a=3.0, b=3.0)
    finish(store, study, claim(store, study), State.COMPLETE, a=2.0, b=2.0)
    mirror.refresh(store)
    assert states(mirror) == "pruned complete"
    assert attributes(mirror, "state") == ["stopped", "complete"]
    promoted = store.promote(study, 0, "driver:1", 2.0)
    assert promoted is not None
    mirror.refresh(store)
    assert states(mirror) == "running complete"
    finish(store, study, promoted, State.COMPLETE, a=1.0, b=1.0)
    mirror.refresh(store)
    assert states(mirror) == "complete complete"
    assert trials(mirror)[0].values == [1.0, 1.0]
    assert attributes(mirror, "earlier") == [{"1": {"a": 3.0, "b": 3.0}}, None]
    assert attributes(mirror, "on_front") == [True, False]
    assert states(mirrored(store)) == "complete complete"


def test_members_come_and_go_and_are_measured_later(store: Store, study: StudyRecord) -> None:
    finish(store, study, claim(store, study), State.COMPLETE, a=2.0, b=2.0)
    mirror = mirrored(store)
    seen = mirror.get_all_trials(0, deepcopy=False)
    finish(store, study, claim(store, study), State.COMPLETE, a=1.0, b=1.0)
    store.amend(study, 1, {"test": 0.5})
    mirror.refresh(store)
    assert attributes(mirror, "on_front") == [False, True]
    assert attributes(mirror, "test") == [None, 0.5]
    store.amend(study, 1, {"more": 0.25})
    mirror.refresh(store)
    assert attributes(mirror, "more") == [None, 0.25]
    assert seen[0].user_attrs["on_front"]  # whoever looks at it is not disturbed


def test_ranks_measurements_and_artifacts_are_attributes(store: Store, study: StudyRecord) -> None:
    file = Artifact("model", "0-1a2b.rsc", "1a2b" * 16, 1234)
    finish(store, study, claim(store, study), State.COMPLETE, file, a=1.0, b=2.0)
    (trial,) = trials(mirrored(store))
    assert trial.user_attrs["artifacts"] == {"model": "0-1a2b.rsc"}
    layers = trial.user_attrs["layers"]
    assert (layers["conv"]["factorization"], layers["conv"]["rank_in"], layers["fc"]) == ("tucker2", 3, "dense")
    assert (trial.user_attrs["a"], trial.user_attrs["b"]) == (1.0, 2.0)


def test_what_was_given_up_waits(store: Store, study: StudyRecord) -> None:
    store.release(study, [claim(store, study)])
    assert states(mirrored(store)) == "waiting"


def test_a_number_that_is_not_known_yet(store: Store, study: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trial claimed, and the next one recorded, after the claims were read."""
    mirror, claims = mirrored(store), store.claims

    def before(of: StudyRecord) -> Sequence[Claim]:
        found = claims(of)
        claim(store, study)
        finish(store, study, claim(store, study), State.COMPLETE, a=1.0, b=2.0)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(store, "claims", before)
        mirror.refresh(store)
    assert states(mirror) == "waiting complete"
    mirror.refresh(store)
    assert states(mirror) == "running complete"


def test_new_studies_appear(store: Store, study: StudyRecord) -> None:
    mirror = mirrored(store)
    other = begin(store, "other", "maximize")
    finish(store, other, claim(store, other), State.COMPLETE, a=1.0)
    finish(store, other, claim(store, other), State.COMPLETE, a=2.0)
    mirror.refresh(store)
    assert [each.study_name for each in mirror.get_all_studies()] == ["mine", "other"]
    assert states(mirror, 1) == "complete complete"
    assert mirror.get_best_trial(1).number == 1
    ids = [trial._trial_id for trial in trials(mirror, 1)]
    assert [mirror.get_trial(each).number for each in ids] == [0, 1]
    assert mirror.get_n_trials(1, TrialState.COMPLETE) == 2
    for missing in (lambda: mirror.get_all_trials(2), lambda: mirror.get_trial(ids[-1] + 1)):
        with pytest.raises(KeyError):
            missing()


def test_only_what_is_new_is_read(store: Store, study: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        finish(store, study, claim(store, study), State.COMPLETE, a=float(number), b=1.0)
    mirror, read, asked = mirrored(store), store.trials, []

    def counted(of: StudyRecord, after: int = 0) -> list[Any]:
        rows = read(of, after)
        asked.append(len(rows))
        return rows

    monkeypatch.setattr(store, "trials", counted)
    mirror.refresh(store)
    finish(store, study, claim(store, study), State.FAILED)
    mirror.refresh(store)
    assert asked == [0, 1]


def test_following_survives_an_absence(
    store: Store, study: StudyRecord, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away, refused = threading.Event(), threading.Semaphore(0)
    summaries = store.studies

    def studies() -> Any:
        if away.is_set():
            refused.release()
            raise StoreAwayError("The server is restarting.")
        return summaries()

    monkeypatch.setattr(store, "studies", studies)
    with following(store, every=timedelta(seconds=0.01)) as mirror:
        claim(store, study)
        wait_for(lambda: states(mirror) == "running")
        away.set()
        assert refused.acquire(timeout=60)
        assert refused.acquire(timeout=60)
        claim(store, study)
        assert states(mirror) == "running"
        away.clear()
        wait_for(lambda: states(mirror) == "running running")
    assert [record.getMessage() for record in caplog.records if record.name == mirror_module.__name__] == [
        "The dashboard stands still until the store is back: The server is restarting."
    ]
    assert not any(thread.name.startswith("Thread") and "_keep_up" in thread.name for thread in threading.enumerate())
