"""Studies with continuous ranks: as the trials themselves, among the seed points, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from rank_search.errors import StudyFileError
from rank_search.run import continuous_points, prepare, run_study
from rank_search.search import Seed
from rank_search.store import Store
from tests.story.small import Small, write_study


def small(folder: Path, trials: int = 4, allocations: int = 10, continuous: int = 0, **search: Any) -> Small:
    seeds = {"allocations": allocations, "continuous": continuous, "fractions": [], "weakenings": []}
    search = {"objectives": ["error", "macs"], "constraints": [], "orthogonality": 0, "seeds": seeds, **search}
    priors = {"calibration": search.pop("calibration", 2)}
    search["entropy"] = {"low": 0, "high": 0}
    return write_study(
        folder,
        study={"name": "stripes", "trials": trials, "cache": "spectra"},
        layers={"exclude": []},
        priors=priors,
        search=search,
        training={"epochs": 0},
    )


def seeds_of(files: Small) -> tuple[Seed, ...]:
    return prepare(rs.load_study(files.file)).seeds


def test_with_the_sampler_the_trials_are_these_points(tmp_path: Path) -> None:
    files = small(tmp_path, sampler="continuous", options={"steps": 2})
    seeds = seeds_of(files)
    assert seeds[0].label == "dense"
    assert 2 <= len(seeds) <= 4
    assert all(seed.label.startswith("continuous 0.") for seed in seeds[1:])
    result = run_study(rs.load_study(files.file))
    assert result.complete
    with Store.open(result.store) as store:
        tried = {row.point.key for row in store.trials(result.study)}
    assert {seed.point.key for seed in seeds} <= tried


def test_they_are_found_once_for_the_same_weights_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small(tmp_path, sampler="continuous", options={"steps": 2})
    first = seeds_of(files)
    monkeypatch.setattr(continuous_points, "mask_search", None)  # calling it would raise
    assert seeds_of(files) == first


def test_they_are_found_anew_where_outputs_are_compared_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds_of(small(tmp_path, sampler="continuous", options={"steps": 2}))
    looked: list[object] = []
    found = continuous_points.Teacher.of
    monkeypatch.setattr(continuous_points, "compares_classes", lambda task, outputs: False)
    monkeypatch.setattr(continuous_points.Teacher, "of", lambda *given: looked.append(given[-1]) or found(*given))
    seeds_of(small(tmp_path, sampler="continuous", options={"steps": 2}))
    assert looked == ["squared"]


def test_seed_points_for_auto(tmp_path: Path) -> None:
    labels = [seed.label.split()[0] for seed in seeds_of(small(tmp_path, allocations=2, continuous=3))]
    assert labels[:3] == ["dense", "allocation", "allocation"]
    assert labels[3:]
    assert set(labels[3:]) == {"continuous"}


def test_bounds_are_kept_and_the_highest_cost_lies_on_them(tmp_path: Path) -> None:
    files = small(tmp_path, continuous=3, allocations=0, constraints=["macs <= 0.5 * dense"])
    prepared = prepare(rs.load_study(files.file))
    shares = [prepared.costs.cost(seed.point)["macs"] / prepared.costs.dense["macs"] for seed in prepared.seeds[1:]]
    assert shares
    assert 0.3 < max(shares) <= 0.5


def test_mixtures_give_a_point_for_each_factorization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rank_search.continuous import mixtures

    monkeypatch.setattr(mixtures, "WARM_UP", 1)
    monkeypatch.setattr(mixtures, "JOINT", 2)
    files = small(tmp_path, sampler="continuous", options={"mixtures": True}, calibration=0)
    assert len(prepare(rs.load_study(files.file)).continuous) == 2  # svd and tucker2


def test_without_batches_they_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"\[priors\] calibration is 0"):
        seeds_of(small(tmp_path, sampler="continuous", calibration=0))


def test_options_that_it_does_not_have_are_refused(tmp_path: Path) -> None:
    files = small(tmp_path, sampler="continuous", options={"step": 2})
    with pytest.raises(StudyFileError, match=r"has no option 'step'.*'steps'"):
        rs.load_study(files.file)
