"""After the search its workers measure the front on the test data; whatever goes wrong there costs no trial."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.observe import SearchProgress
from tests.story.small import write_study

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
