"""Forms are timed by the driver that begins a study, kept with it, and read by whoever goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.errors import StudyFileError
from rank_search.layers import Factorization, Layer
from rank_search.point import Choice
from rank_search.run import join as record
from rank_search.run.join import forms_of
from rank_search.store import Store
from rank_search.trials import LatencySettings

QUICK: dict[str, Any] = {"repeats": 1}


class Timer:
    """Stands in for the measurement: the SVD is fast, everything else is slow; counts how often it was asked."""

    def __init__(self, svd: float) -> None:
        self.svd, self.asked = svd, 0

    def __call__(
        self, layer: Layer, plugin: type[Factorization], choice: Choice, settings: LatencySettings, device: torch.device
    ) -> float:
        self.asked += 1
        return self.svd if choice.factorization == "svd" else 1.25


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Timer:
    made = Timer(0.5)
    monkeypatch.setattr(record, "form_ratio", made)
    return made


def model() -> nn.Module:
    torch.manual_seed(0)
    middle = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), *middle, nn.Flatten(), nn.Linear(128, 4)).eval()


def searched(folder: Path, trials: int, latency: dict[str, Any] = QUICK, **search: Any) -> rs.Compressed:
    data = [(torch.randn(8, 1, 4, 4), torch.arange(8) % 4)]
    return rs.compress(
        model(),
        train=data,
        selection=data,
        test=data,
        trials=trials,
        store=folder / "s.sqlite",
        layers={"factorizations": ["tucker2", "svd"], "exclude": ["0"]},
        search={"objectives": ["error", "latency"], **search},
        training={"epochs": 0},
        latency=latency,
    )


def kept(folder: Path) -> Any:
    with Store.open(folder / "s.sqlite") as store:
        study = store.study("compressed")
        chosen = {choice.factorization for row in store.trials(study) for choice in row.point.layers.values()}
        return study, chosen


def test_a_slower_form_is_never_tried(tmp_path: Path, timer: Timer) -> None:
    searched(tmp_path, 12)
    study, chosen = kept(tmp_path)
    assert chosen == {"dense", "svd"}
    ratios = {ratio for _, ratio in forms_of(study).measured["2"]["tucker2"]}
    assert ratios == {1.25}


def test_who_goes_on_reads_what_was_measured_when_it_began(tmp_path: Path, timer: Timer) -> None:
    searched(tmp_path, 3)
    first, asked = forms_of(kept(tmp_path)[0]), timer.asked
    assert asked > 0
    timer.svd = 2.0  # were it measured again, everything would be dense from now on
    searched(tmp_path, 12)
    study, chosen = kept(tmp_path)
    assert timer.asked == asked
    assert forms_of(study) == first
    assert chosen == {"dense", "svd"}


def test_without_latency_nothing_is_timed(tmp_path: Path, timer: Timer) -> None:
    searched(tmp_path, 6, objectives=["error", "macs"])
    study, chosen = kept(tmp_path)
    assert timer.asked == 0
    assert "forms" not in study.space
    assert "tucker2" in chosen


def test_a_constraint_on_latency_is_enough(tmp_path: Path, timer: Timer) -> None:
    searched(tmp_path, 2, objectives=["error", "macs"], constraints=["latency_ratio <= 5"])
    assert timer.asked > 0


def test_slower_forms_may_be_allowed(tmp_path: Path, timer: Timer) -> None:
    searched(tmp_path, 6, {**QUICK, "slower_forms": True})
    study, chosen = kept(tmp_path)
    assert timer.asked == 0
    assert "tucker2" in chosen
    assert study.fingerprint["latency.slower_forms"] == "True"


def test_a_study_from_before_forms_were_timed_goes_on_as_it_began(
    tmp_path: Path, timer: Timer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(record, "_timed", lambda prepared, workbench: {})
        searched(tmp_path, 2)
    searched(tmp_path, 8)
    study, chosen = kept(tmp_path)
    assert timer.asked == 0
    assert "tucker2" in chosen
    assert not any("slower_forms" in key for key in study.fingerprint)


def test_a_constraint_that_only_slower_forms_keep_is_refused_before_anything_is_stored(
    tmp_path: Path, timer: Timer
) -> None:
    timer.svd = 1.5
    with pytest.raises(StudyFileError, match=r"none keeps 'macs <= 0\.5 \* dense'.*slower_forms = true"):
        searched(tmp_path, 2, constraints=["macs <= 0.5 * dense"])
    with Store.open(tmp_path / "s.sqlite") as store:
        assert store.studies() == []
