"""A search for few nonzeros, from the study file to the front, a trial and the report."""

from __future__ import annotations

from pathlib import Path

import torch

import rank_search as rs
from tests.story.small import Command, write_study
from tests.story.stripes import task


def test_nonzeros_are_an_objective_a_constraint_and_a_number_of_every_trial(tmp_path: Path, command: Command) -> None:
    search = {"objectives": ["error", "nonzeros"], "constraints": ["nonzeros <= 90%"]}
    small = write_study(tmp_path, study={"trials": 6}, search=search)
    command.fine("run", small.file)
    with rs.Store.open(small.store) as store:
        study, rows = store.study("stripes"), store.trials("stripes")
        assert study.dense["nonzeros"] == study.dense["params"]
        for row in rows:
            kept = row.measurements["nonzeros"] <= 0.9 * study.dense["nonzeros"]
            assert (row.state is rs.State.COMPLETE) == kept
        assert any(row.measurements["nonzeros"] < 0.9 * row.measurements["params"] for row in rows)  # by rounding
        front = store.front("stripes", where=[rs.Bound.parse("nonzeros <= 0.9 * dense")], sort="nonzeros")
        assert len(front) > 0
        for row in front:
            model = rs.build_model(store, "stripes", row.number, task())
            factors = sum(int(torch.count_nonzero(each)) for each in model.parameters())
            assert row.measurements["nonzeros"] <= min(factors, row.measurements["params"])
    assert "nonzeros" in command.fine("front", small.store, "stripes").out
    shown = command.fine("show", small.store, "stripes", front[0].number, "--format", "json").json[0]
    assert shown["measurements"]["nonzeros"] == front[0].measurements["nonzeros"]
    command.fine("report", small.store, "stripes", "--output", tmp_path / "report.html")
    assert "nonzeros" in (tmp_path / "report.html").read_text(encoding="utf-8")
