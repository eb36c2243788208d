"""Studies with continuous ranks: as the trials themselves, among the seed points, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from rank_search.errors import StudyFileError
from rank_search.run import prepare, run_study, seen_outputs
from rank_search.search import Seed
from rank_search.store import Store
from tests.story.small import Small, write_study


def small(folder: Path, trials: int = 4, allocations: int = 10, continuous: int = 0, **search: Any) -> Small:
    seeds = {"allocations": allocations, "continuous": continuous, "fractions": [], "weakenings": []}
    search = {"objectives": ["error", "macs"], "constraints": [], "orthogonality": 0, "seeds": seeds, **search}
    priors = {"calibration": search.pop("calibration", 2), "importances": search.pop("importances", 0)}
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
    monkeypatch.setattr(seen_outputs, "mask_search", None)  # calling it would raise
    assert seeds_of(files) == first


def test_they_are_found_anew_where_outputs_are_compared_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds_of(small(tmp_path, sampler="continuous", options={"steps": 2}))
    looked: list[object] = []
    found = seen_outputs.Teacher.of
    monkeypatch.setattr(seen_outputs, "compares_classes", lambda task, outputs: False)
    monkeypatch.setattr(seen_outputs.Teacher, "of", lambda *given: looked.append(given[-1]) or found(*given))
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


def test_importances_change_the_errors_that_allocations_add_up(tmp_path: Path) -> None:
    plain = prepare(rs.load_study(small(tmp_path, allocations=6).file)).options
    learned = prepare(rs.load_study(small(tmp_path, allocations=6, importances=2).file)).options
    assert plain is not None
    assert learned is not None
    factors = [new[1].error / old[1].error for old, new in zip(plain.of.values(), learned.of.values(), strict=True)]
    assert max(factors) > 1.05 * min(factors)
    for factor, old, new in zip(factors, plain.of.values(), learned.of.values(), strict=True):
        assert [each.error for each in new] == pytest.approx([factor * each.error for each in old], rel=1e-3)


def test_importances_are_learned_once_for_the_same_weights_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rank_search.steps")
    first = seeds_of(small(tmp_path, importances=2))
    told = [each.getMessage() for each in caplog.records if "mportances" in each.getMessage()]
    assert [each.split(":")[0] for each in told] == ["Importances, 1 of 2", "Importances, 2 of 2"]
    monkeypatch.setattr(seen_outputs, "mask_search", None)  # calling it would raise
    assert seeds_of(small(tmp_path, importances=2)) == first


def test_importances_are_learned_within_the_bounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rank_search.steps")
    seeds_of(small(tmp_path, importances=1, constraints=["macs <= 0.3 * dense"]))
    (told,) = (each.getMessage() for each in caplog.records if each.getMessage().startswith("Importances, "))
    assert int(told.split()[-4].rstrip("%")) < 30


def test_a_search_with_importances_goes_on_to_its_end(tmp_path: Path) -> None:
    assert run_study(rs.load_study(small(tmp_path, trials=14, importances=1).file)).complete


def test_importances_without_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="importances needs batches"):
        rs.load_study(small(tmp_path, importances=1, calibration=0).file)
