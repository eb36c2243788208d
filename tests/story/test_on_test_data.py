"""After the search its workers measure the front on the test data; whatever goes wrong there costs no trial."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.observe import SearchProgress
from rank_search.run.front_on_test import why_optimistic
from rank_search.store import EXAMPLES
from tests.story.small import Command, write_study

FAST = {"epochs": 0.0}
SEARCH = {"objectives": ["error", "macs"], "entropy": 0.0, "orthogonality": 0.0, "constraints": []}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_workers_test_the_front(tmp_path: Path, workers: int) -> None:
    task = {"factory": "faulty.py:who_tests"}
    small = write_study(tmp_path, task=task, search=SEARCH, training=FAST, launch={"workers": workers, "threads": 1})
    told: list[SearchProgress] = []
    result = rs.run_study(rs.load_study(Path(small.file)), report=told.append)
    processes = {row.measurements["test_process"] for row in result.front}
    assert (float(os.getpid()) in processes) == (workers == 1)
    assert len(processes) <= workers
    assert all(0 <= row.measurements["test_error"] <= 1 for row in result.front)
    left = [each.untested for each in told if each.untested] + [told[-1].untested]
    assert left == list(range(len(result.front)))[::-1]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_on_the_test_data_is_measured_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.chdir(tmp_path)
    task = {"factory": "faulty.py:tests_badly"}
    small = write_study(tmp_path, task=task, search=SEARCH, training=FAST, launch={"workers": workers, "threads": 1})
    study = rs.load_study(Path(small.file))

    def take_away(progress: SearchProgress) -> None:
        if progress.finished == progress.target:
            (tmp_path / "gone").touch()

    with pytest.raises(TaskError, match="the disk with the test data is away"):
        rs.run_study(study, report=take_away)
    with rs.Store.open(small.store) as store:
        found = store.study("stripes")
        assert len(store.trials(found)) == 9
        assert not any("test_error" in row.measurements for row in store.trials(found))
        assert store.claims(found) == []
    (tmp_path / "gone").unlink()
    result = rs.run_study(study)
    assert result.added == 0
    assert all("test_error" in row.measurements for row in result.front)


def test_a_run_says_that_the_selection_data_are_easier_than_the_test_data(tmp_path: Path, command: Command) -> None:
    task = {"factory": "faulty.py:tests_are_harder"}
    small = write_study(tmp_path, task=task, search=SEARCH, training=FAST, study={"trials": 2})
    assert "has probably been trained on the selection data" in " ".join(command.fine("run", small.file).err.split())
    with rs.Store.open(small.store) as store:
        record = store.study("stripes")
    assert record.dense["error"] == 0 < record.dense["test_error"]
    assert f"error is {record.dense['error']:.4g} on the selection data" in why_optimistic(record)


@pytest.mark.parametrize(
    ("selection", "test", "examples", "suspected"),
    [
        (0.003, 0.085, 1000, True),
        (0.0, 0.08, 500, True),
        (0.05, 0.085, 100_000, False),  # beyond chance, but not a matter of having seen them
        (0.0, 0.08, 50, False),  # as may be by chance
        (0.085, 0.003, 1000, False),
        (0.003, 0.085, None, False),
        (3.0, 9.0, 1000, False),  # no rate
    ],
)
def test_when_selection_data_are_suspected(
    seen: rs.StudyRecord,
    selection: float,
    test: float,
    examples: int | None,
    suspected: bool,
) -> None:
    record = replace(seen, dense={"error": selection, "test_error": test}, space={EXAMPLES: examples})
    assert bool(why_optimistic(record)) == suspected
    accuracy = replace(
        record,
        objectives=(replace(record.objectives[0], name="accuracy", direction="maximize"),),
        dense={"accuracy": 1 - selection, "test_accuracy": 1 - test},
    )
    assert bool(why_optimistic(accuracy)) == suspected


def test_without_test_data_nothing_is_suspected(seen: rs.StudyRecord) -> None:
    assert why_optimistic(replace(seen, dense={"error": 0.0}, space={EXAMPLES: 1000})) == ""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> rs.StudyRecord:
    folder = tmp_path_factory.mktemp("seen")
    small = write_study(folder, search=SEARCH, training=FAST, study={"trials": 1, "test": "none"})
    return rs.run_study(rs.load_study(Path(small.file))).study
