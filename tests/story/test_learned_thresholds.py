"""Studies whose training learns thresholds: of weights, which store less, and of gains, which end at lower ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from rank_search.layers import count_nonzeros, count_params
from rank_search.store import TrialRow
from tests.story.small import Command, Small, write_study
from tests.story.test_packed import error_of

FULL = {
    "name": "full",
    "layers": {
        "second": {"factorization": "soft-rank", "rank": 12, "folds": 12.0},
        "last": {"factorization": "soft-rank", "rank": 4, "folds": 12.0},
    },
}


def searched(folder: Path, factorization: str, cost: str, **search: Any) -> Small:
    small = write_study(
        folder,
        study={"trials": 3},
        layers={"factorizations": [factorization]},
        search={
            "objectives": ["error", cost],
            "constraints": [],
            "orthogonality": "off",
            "sampler": "random",
            **search,
        },
        training={"epochs": 2.0, "learning_rate": 0.01},
    )
    assert rs.run_study(rs.load_study(small.file)).complete
    return small


def rows_of(small: Small) -> list[TrialRow]:
    with rs.Store.open(small.store) as store:
        return sorted(store.trials("stripes"), key=lambda row: row.number)


def deployed(small: Small, row: TrialRow, folder: Path, command: Command) -> None:
    """The member as it is built, exported and packed has the error that was measured."""
    with rs.Store.open(small.store) as store:
        model = rs.build_model(store, "stripes", row.number)
    assert count_params(model) == row.measurements["params"]
    assert count_nonzeros(model) == row.measurements["nonzeros"]
    assert error_of(model, small) == row.measurements["error"]
    command.fine("export", small.store, "stripes", row.number, "-o", folder / "folder")
    command.fine("pack", small.store, "stripes", row.number, "-o", folder / "m.rsz")
    for written in ("folder", "m.rsz"):
        assert error_of(rs.load(folder / written), small) == pytest.approx(row.measurements["error"], abs=1e-6)
    command.fine("check", small.store, "stripes")


def test_sparse_weights_store_less(tmp_path: Path, command: Command) -> None:
    small = searched(tmp_path / "study", "soft-threshold", "bits", entropy=0.05, seeds={"fractions": [0.5]})
    rows = rows_of(small)
    with rs.Store.open(small.store) as store:
        front = store.front(store.study("stripes"), sort="bits")
    (row,) = front[:1]
    assert any(choice.factorization == "soft-threshold" for choice in row.point.layers.values())
    assert row.measurements["nonzeros"] < 0.8 * row.measurements["params"]
    assert len({each.measurements["macs"] for each in rows}) == 1
    deployed(small, row, tmp_path, command)


def test_learned_ranks_are_smaller_than_they_began(tmp_path: Path, command: Command) -> None:
    seeds = {"allocations": 0, "fractions": [], "weakenings": [], "dense": False, "points": [FULL]}
    constraints = ["macs <= 90%"]
    small = searched(tmp_path / "study", "soft-rank", "macs", entropy="off", constraints=constraints, seeds=seeds)
    row = rows_of(small)[0]
    assert row.point.layers["second"].values["rank"] == 12
    assert row.state is rs.State.COMPLETE, "it begins above the bound, and may end below"
    assert row.settled is not None
    assert row.settled.layers["second"].values["rank"] < 12
    with rs.Store.open(small.store) as store:
        dense = store.study("stripes").dense
    assert row.measurements["macs"] <= 0.9 * dense["macs"]
    deployed(small, row, tmp_path, command)
