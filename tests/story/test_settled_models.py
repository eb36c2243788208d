"""A study in which training empties components: its members are smaller than what was asked for, down to the export."""

from __future__ import annotations

from pathlib import Path

import pytest

import rank_search as rs
from rank_search.layers import count_params
from rank_search.store import TrialRow
from tests.story.small import Command, Small, write_study
from tests.story.test_packed import error_of
from tests.story.test_verbs import rows_of


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = write_study(
        tmp_path_factory.mktemp("emptied"),
        study={"trials": 2},
        search={"entropy": 30.0, "seeds": {"allocations": 0, "fractions": [0.5]}},
        training={"epochs": 2.0, "entropy_start_bits": 1.0},
    )
    assert rs.run_study(rs.load_study(made.file)).complete
    return made


def settled_member(small: Small) -> TrialRow:
    with rs.Store.open(small.store) as store:
        return next(row for row in store.front(store.study("stripes")) if row.settled)


def test_a_member_is_exported_packed_and_checked_as_it_has_settled(
    emptied: Small, tmp_path: Path, command: Command
) -> None:
    row = settled_member(emptied)
    with rs.Store.open(emptied.store) as store:
        model = rs.build_model(store, "stripes", row.number)
    assert count_params(model) == row.measurements["params"]
    assert error_of(model, emptied) == row.measurements["error"]
    command.fine("export", emptied.store, "stripes", row.number, "-o", tmp_path / "folder")
    command.fine("pack", emptied.store, "stripes", row.number, "-o", tmp_path / "m.rsz")
    for written in (tmp_path / "folder", tmp_path / "m.rsz"):
        assert error_of(rs.load(written), emptied) == row.measurements["error"]
    command.fine("check", emptied.store, "stripes")


def test_a_study_goes_on_and_confirms_what_was_asked(emptied: Small, tmp_path: Path, command: Command) -> None:
    copied = emptied.copy_to(tmp_path / "copied")
    row = settled_member(copied)
    command.fine("run", copied.file, "--trials", 3)
    assert len(rows_of(command, "trials", copied.store, "stripes")) == 3
    found = rs.confirm(copied.store, "stripes", [row.number], epochs=2.5)
    (pair,) = found.trials
    assert pair.after.point == row.point
    assert pair.after.measurements["params"] <= found.study.dense["params"]
    command.fine("check", copied.store, "stripes")
