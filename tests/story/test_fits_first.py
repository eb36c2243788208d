"""A study whose trials are measured before any training, and of which only those that look best are trained."""

from __future__ import annotations

from pathlib import Path

import rank_search as rs
from rank_search.artifacts import ArtifactStore
from rank_search.point import State
from rank_search.store import artifact_folder
from tests.story.small import write_study


def test_only_the_best_fits_are_trained(tmp_path: Path) -> None:
    made = write_study(
        tmp_path,
        study={"trials": 12},
        search={
            "objectives": ["error", "macs"],
            "orthogonality": "off",
            "entropy": "off",
            "constraints": [],
            "seeds": {"allocations": 4},
            "rungs": {"first": 0},
        },
        training={"epochs": 2.0},
    )
    assert rs.run_study(rs.load_study(made.file), workers=1).complete
    with rs.Store.open(made.store) as store:
        study = store.study("stripes")
        rows = sorted(store.trials(study), key=lambda row: row.number)
        assert store.check(study, ArtifactStore(artifact_folder(made.store, study.folder))) == []
        front = store.front(study)
    assert len(rows) == 12
    assert {(row.state, row.budget) for row in rows} == {(State.STOPPED, 0.0), (State.COMPLETE, 2.0)}
    assert {row.budget for row in front} == {2.0}
    trained, fitted = ([row for row in rows if row.budget == budget] for budget in (2.0, 0.0))
    assert all(list(row.earlier) == [0.0] for row in trained)
    assert all(not row.artifacts for row in fitted)
    fits = [(row.earlier.get(0.0, row.measurements), row) for row in rows]
    for found, row in fits:
        is_matched = any(
            each["error"] <= found["error"] and each["macs"] <= found["macs"] and other.number != row.number
            for each, other in fits
        )
        assert is_matched or row.budget == 2.0, "all on the front of the fits are trained"
