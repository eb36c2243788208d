"""A task without training data: batch norms keep their statistics, and what needs data is refused before a trial."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.run import run_study
from rank_search.study import Study
from tests.story.nets import data, network

ALONE = {"priors": {"calibration": 0}, "training": {"epochs": 0}}


def trained() -> nn.Module:
    """A network whose batch norm has seen data."""
    torch.manual_seed(0)
    found = network().train()
    for inputs, _ in data(1):
        found(3 * inputs + 1)
    return found.eval()


def task(training: Any = (), model: nn.Module | None = None) -> rs.Supervised:
    return rs.Supervised(model or trained(), list(training), data(2))


def study(folder: Path, **tables: Any) -> Study:
    needed = {"study": {"name": "bare", "trials": 5}, "task": {"factory": "none"}, "folder": folder}
    return Study.from_python({**needed, **ALONE, **tables})


def test_batch_norms_keep_their_statistics_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    model, place = trained(), tmp_path / "bare.sqlite"
    own = task(model=model)
    run_study(study(tmp_path), task=own, store=str(place))
    said = [each.message for each in caplog.records if "Batch norms keep the statistics" in each.message]
    assert said == [
        "Batch norms keep the statistics of the dense model in every trial: there is no training data to take others "
        "on."
    ]
    with rs.Store.open(place) as store:
        rows = store.trials(store.study("bare"))
        assert [row.state for row in rows] == [rs.State.COMPLETE] * 5
        factorized = next(row.number for row in store.front(store.study("bare")) if any(row.chosen))
        made = rs.build_model(store, "bare", factorized, own)
    state, dense = made.state_dict(), model.state_dict()
    assert torch.equal(state["norm.running_mean"], dense["norm.running_mean"])
    assert torch.equal(state["norm.running_var"], dense["norm.running_var"])


def test_with_training_data_statistics_are_taken_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "bare.sqlite"
    own = task(data(1))
    run_study(study(tmp_path), task=own, store=str(place))
    with rs.Store.open(place) as store:
        number = next(row.number for row in store.front(store.study("bare")) if any(row.chosen))
        state = rs.build_model(store, "bare", number, own).state_dict()
    assert not torch.allclose(state["norm.running_mean"], own.network.state_dict()["norm.running_mean"])
    assert "keep the statistics" not in caplog.text


def test_without_batch_norms_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    run_study(study(tmp_path), task=task(model=model), store=str(tmp_path / "bare.sqlite"))
    assert "keep the statistics" not in caplog.text


@pytest.mark.parametrize(
    "tables",
    [
        {"training": {"epochs": 1}},
        {"priors": {"calibration": 2}},
        {"search": {"entropy": 1e-2}, "coding": {"rounding": "rate"}},
    ],
)
def test_what_needs_training_data_is_refused_before_a_trial(tmp_path: Path, tables: dict[str, Any]) -> None:
    place = tmp_path / "bare.sqlite"
    with pytest.raises(TaskError, match=r"training (data|batches)"):
        run_study(study(tmp_path, **tables), task=task(), store=str(place))
    if place.is_file():
        with rs.Store.open(place) as store:
            assert not store.studies()


def test_training_data_that_raises_is_refused_before_a_trial(tmp_path: Path) -> None:
    class Gone:
        def __iter__(self) -> Any:
            raise OSError("the disk is away")

    own = rs.Supervised(trained(), Gone(), data(2))
    with pytest.raises(TaskError, match="the disk is away"):
        run_study(study(tmp_path), task=own, store=str(tmp_path / "bare.sqlite"))


def test_an_allocated_model_keeps_them_too(tmp_path: Path) -> None:
    own = task()
    found = rs.run.allocate_model(study(tmp_path), {"macs": 0.6}, own)
    state = found.model.state_dict()
    assert torch.equal(state["norm.running_mean"], own.network.state_dict()["norm.running_mean"])
