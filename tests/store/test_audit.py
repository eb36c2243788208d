from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError
from rank_search.point import Artifact, Outcome, State
from rank_search.store import Store, StudyRecord, audit
from tests.store.store_tools import a_record, complete, fill, finish


@pytest.fixture
def filled(store: Store) -> StudyRecord:
    """Trial 0 dominates 1 and 2, 3 dominates 0, 4 is beside 3, 5 has failed, 6 had half the budget."""
    study = store.join(a_record())
    fill(store, study, [[2, 2], [3, 3], [4, 2], [1, 1], [0, 5]])
    finish(store, study, Outcome(State.FAILED, reason="it raised"))
    finish(store, study, complete(a=0, b=0), budget=1.0)
    assert store.check(study) == []
    return study


@pytest.fixture
def damage(url: str, filled: StudyRecord) -> Callable[[str], None]:
    """Changes the trials of the study behind the store's back."""

    def change(sql: str) -> None:
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            query = text("SELECT number, id FROM rs_trial WHERE study_id = :study")
            ids = dict(connection.execute(query, {"study": filled.id}).all())
            values = {f"t{number}": trial_id for number, trial_id in ids.items() if f":t{number}" in sql}
            connection.execute(text(sql), values)
        engine.dispose()

    return change


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "UPDATE rs_trial SET dominated_by = NULL WHERE id = :t1",
            [
                "Trial 1 was first dominated by trial 0; the store says nobody.",
                "Trial 1 is not on the front; the store says otherwise.",
            ],
        ),
        (
            "UPDATE rs_trial SET dominated_by = :t3 WHERE id = :t1",
            ["Trial 1 was first dominated by trial 0; the store says trial 3."],
        ),
        (
            "UPDATE rs_trial SET dominated_by = :t3 WHERE id = :t4",
            [
                "Trial 4 was first dominated by nobody; the store says trial 3.",
                "Trial 4 is on the front; the store says otherwise.",
            ],
        ),
        (
            "UPDATE rs_trial SET eligible = true WHERE id = :t5",
            ["Trial 5 is failed at budget 2 of 2; the store says that it takes part in the front."],
        ),
        (
            "UPDATE rs_trial SET dominated_by = :t3 WHERE id = :t6",
            ["Trial 6 takes no part in the front, and yet the store says who dominates it."],
        ),
        (
            "DELETE FROM rs_choice WHERE trial_id = :t2 AND layer = 'fc'",
            ["Trial 2: its choices, row by row, are not those of its point."],
        ),
        (
            "UPDATE rs_choice SET value = value + 1 WHERE trial_id = :t2 AND axis = 'rank_in'",
            ["Trial 2: its choices, row by row, are not those of its point."],
        ),
        (
            "DELETE FROM rs_measurement WHERE trial_id = :t1 AND name = 'b'",
            ["Trial 1 is complete, and yet has no b."],
        ),
    ],
)
def test_damage_is_found(
    store: Store, filled: StudyRecord, damage: Callable[[str], None], sql: str, expected: list[str]
) -> None:
    damage(sql)
    assert store.check(filled) == expected


def test_a_measurement_that_would_change_the_front_is_found(
    store: Store, filled: StudyRecord, damage: Callable[[str], None]
) -> None:
    damage("UPDATE rs_measurement SET value = 0 WHERE trial_id = :t2")
    assert "Trial 2 is on the front; the store says otherwise." in store.check(filled)


def test_a_measurement_that_is_not_finite_is_found(
    store: Store, filled: StudyRecord, damage: Callable[[str], None]
) -> None:
    infinity = "9e999" if "sqlite" in store.location else "'Infinity'"
    damage(f"UPDATE rs_measurement SET value = {infinity} WHERE trial_id = :t1 AND name = 'b'")
    assert store.check(filled) == ["Trial 1: b is inf, which is not a finite number."]


def test_a_wrong_key_is_found(store: Store, filled: StudyRecord, damage: Callable[[str], None]) -> None:
    damage("UPDATE rs_trial SET point_key = 'feedfeedfeedfeed' WHERE id = :t0")
    (problem,) = store.check(filled)
    assert problem.startswith("Trial 0: the digest of its point is ")
    assert problem.endswith("the store says feedfeedfeed….")


def test_a_claim_of_a_finished_trial_is_found(store: Store, filled: StudyRecord, damage: Callable[[str], None]) -> None:
    damage(
        "INSERT INTO rs_claim "
        "SELECT study_id, number, point, point_key, worker, attempt, started, finished, sampler, budget "
        "FROM rs_trial WHERE id = :t2"
    )
    assert store.check(filled) == ["Trial 2 is finished, and yet still claimed."]


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def of_a_trial(store: Store, study: StudyRecord, file: Artifact, state: State = State.COMPLETE) -> None:
    budget = 2.0 if state is State.COMPLETE else 1.0
    finish(store, study, Outcome(state, {"a": 1, "b": 1}, artifacts=(file,)), budget=budget)


@pytest.mark.parametrize(("kind", "state"), [("model", State.COMPLETE), ("checkpoint", State.STOPPED)])
def test_files_are_compared_with_their_rows(
    store: Store, study: StudyRecord, artifacts: ArtifactStore, tmp_path: Path, kind: str, state: State
) -> None:
    file = artifacts.write(kind, "some point", ".bin", b"four")
    of_a_trial(store, study, file, state)
    assert store.check(study, artifacts) == []
    for content in (b"five", b"longer", b"", None):
        path = tmp_path / file.location
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ArtifactError) as caught:
            artifacts.read(file)
        assert store.check(study, artifacts) == [f"Trial 0: its {kind}, {file.location}: {caught.value}"]
    assert store.check(study) == []


def test_a_file_that_is_dropped_during_the_check_is_no_problem(
    store: Store, study: StudyRecord, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped, kept = (artifacts.write("model", "point", ".bin", content) for content in (b"1", b"2"))
    for file in (dropped, kept):
        of_a_trial(store, study, file)
        artifacts.delete(file.location)
    fill(store, study, [[0, 0]])
    look = audit.file_problems

    def drop_and_look(*given: Any) -> list[audit.Suspect]:
        store.forget_artifacts(study, 0)
        return look(*given)

    monkeypatch.setattr(audit, "file_problems", drop_and_look)
    (problem,) = store.check(study, artifacts)
    assert problem.startswith(f"Trial 1: its model, {kept.location}: ")
