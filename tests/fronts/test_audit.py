from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rank_search.fronts import Store, StudyRecord
from rank_search.point import Artifact, Outcome, State
from tests.fronts.store_tools import a_record, complete, fill, finish


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
        "SELECT study_id, number, point, point_key, worker, attempt, started, finished, sampler "
        "FROM rs_trial WHERE id = :t2"
    )
    assert store.check(filled) == ["Trial 2 is finished, and yet still claimed."]


def test_files_are_compared_with_their_rows(store: Store, study: StudyRecord, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    file = tmp_path / "0" / "weights"
    file.write_bytes(b"four")
    row = Artifact("weights", "0/weights", hashlib.sha256(b"four").hexdigest(), 4)
    finish(store, study, Outcome(State.COMPLETE, {"a": 1, "b": 1}, artifacts=(row,)))
    assert store.check(study, tmp_path) == []
    file.write_bytes(b"five")
    assert store.check(study, tmp_path) == [
        "Trial 0: its weights, 0/weights, has other content than when it was recorded."
    ]
    file.write_bytes(b"longer")
    assert store.check(study, tmp_path) == [
        "Trial 0: its weights, 0/weights, has 6 bytes, and had 4 when it was recorded."
    ]
    file.unlink()
    assert store.check(study, tmp_path) == [
        "Trial 0: its weights, 0/weights, cannot be read (No such file or directory)."
    ]
    assert store.check(study) == []
