"""Forms that only store less: searched where that is asked for, and said to be dense where it is not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from tests.story.small import Small, write_study

REPEATED = str(Path(__file__).parents[1] / "repeated.py")
HALF = {"name": "half", "layers": {"second": {"factorization": f"{REPEATED}:Repeated", "kept": 4}}}


def run(folder: Path, *objectives: str, **search: Any) -> list[rs.TrialRow]:
    """All trials of a study that may only store less, nothing trained."""
    small: Small = write_study(
        folder,
        study={"trials": 6},
        layers={"factorizations": [f"{REPEATED}:Repeated"]},
        search={"objectives": objectives, "constraints": [], "entropy": 0.0, "orthogonality": 0.0, **search},
        training={"epochs": 0.0},
    )
    rs.run_study(rs.load_study(small.file))
    with rs.Store.open(small.store) as store:
        return sorted(store.trials("stripes"), key=lambda row: row.number)


@pytest.mark.parametrize("cost", ["params", "bits"])
def test_a_study_that_asks_for_storage_finds_them(tmp_path: Path, cost: str) -> None:
    rows = run(tmp_path, "error", cost, seeds={"allocations": 2})
    assert len(rows) == 6
    dense, *others = rows
    for row in others:
        assert any(not choice.is_dense for choice in row.point.layers.values())
        assert row.measurements[cost] < dense.measurements[cost]
        assert row.measurements["macs"] == dense.measurements["macs"]


def test_a_seed_point_that_saves_no_macs_is_said_to_be_dense(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = run(tmp_path, "error", "macs", seeds={"allocations": 0, "points": [HALF]})
    (said,) = [record.getMessage() for record in caplog.records if "seed point" in record.getMessage()]
    assert "In seed point 'half', layer 'second' stays dense" in said
    assert "kept 4 costs" in said
    assert len(rows) == 1


def test_a_seed_point_that_saves_parameters_is_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = run(tmp_path, "error", "params", seeds={"dense": False, "allocations": 0, "points": [HALF]})
    assert "seed point" not in caplog.text
    assert rows[0].point.layers["second"].values == {"kept": 4}
