"""A study under the sparsity penalty: its trials end at lower ranks than were asked for, and everything says so."""

from __future__ import annotations

from pathlib import Path

import pytest

import rank_search as rs
from rank_search.layers import count_params
from rank_search.point import State
from rank_search.store import TrialRow
from tests.story.small import Command, Small, write_study
from tests.story.test_packed import error_of


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = write_study(
        tmp_path_factory.mktemp("learned"),
        study={"trials": 8},
        search={
            "objectives": ["error", "macs"],
            "sampler": "random",
            "orthogonality": "off",
            "entropy": "off",
            "sparsity": {"low": 3.0, "high": 9.0},
            "seeds": {"allocations": 0, "fractions": [0.75]},
            "rungs": {"first": 2.0},
        },
        training={"epochs": 4.0, "learning_rate": 0.01},
    )
    assert rs.run_study(rs.load_study(made.file)).complete
    return made


def trials_of(small: Small) -> list[TrialRow]:
    with rs.Store.open(small.store) as store:
        return [*store.trials(store.study("stripes"))]


def test_a_study_learns_ranks(learned: Small) -> None:
    rows = trials_of(learned)
    assert len({row.point.penalties["sparsity"] for row in rows}) > 2, "the sampler chooses the strength"
    lower = [row for row in rows if row.settled and row.state is State.COMPLETE]
    assert lower
    for row in lower:
        assert row.point.penalties["sparsity"] > 0
        assert row.model_point.penalties == row.point.penalties
        with rs.Store.open(learned.store) as store:
            model = rs.build_model(store, "stripes", row.number)
        assert count_params(model) == row.measurements["params"]
        assert error_of(model, learned) == row.measurements["error"]


def test_show_and_report_say_what_training_has_made_of_it(learned: Small, tmp_path: Path, command: Command) -> None:
    row = next(row for row in trials_of(learned) if row.settled and row.state is State.COMPLETE)
    assert row.settled is not None
    name, after = next((name, each) for name, each in row.settled.layers.items() if each != row.point.layers[name])
    said = command.fine("show", learned.store, "stripes", row.number).out
    assert "penalties.sparsity" in said
    assert any(
        f"{row.point.layers[name].values[axis]} → {value}" in said
        for axis, value in after.values.items()
        if value != row.point.layers[name].values[axis]
    )
    command.fine("report", learned.store, "stripes", "-o", tmp_path / "report.html")
    assert "sparsity" in (tmp_path / "report.html").read_text(encoding="utf-8")
    command.fine("check", learned.store, "stripes")
