"""A study whose trials fit their layers block by block, to what the factorized blocks before them give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.export import build_model
from rank_search.options import factorize_in_order
from rank_search.quantization import reestimate_batchnorm
from rank_search.run import begin, prepare, run_study
from rank_search.run.preparation import sequential_pass
from rank_search.store import Store, TrialRow
from rank_search.tasks import LossPass, seeded
from tests.story.small import Small, write_study


def small(folder: Path, norms: int = 2, **priors: Any) -> Small:
    seeds = {"allocations": 4, "fractions": [], "weakenings": []}
    search = {"objectives": ["error", "macs"], "constraints": [], "orthogonality": 0, "seeds": seeds}
    search["entropy"] = {"low": 0, "high": 0}
    return write_study(
        folder, layers={"exclude": []}, priors=priors, search=search, training={"epochs": 0, "batchnorm_batches": norms}
    )


def run(files: Small, **launch: Any) -> list[TrialRow]:
    result = run_study(rs.load_study(files.file).launched(launch), trials=4)
    with Store.open(result.store) as store:
        return sorted(store.trials(result.study), key=lambda row: row.point.key)


def measured(rows: list[TrialRow]) -> list[tuple[rs.Point, dict[str, float]]]:
    return [(row.point, {name: row.measurements[name] for name in ("error", "bits", "macs")}) for row in rows]


def same(one: nn.Module, other: nn.Module) -> bool:
    tensors = other.state_dict()
    return all(torch.equal(tensor, tensors[name]) for name, tensor in one.state_dict().items())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small(tmp_path_factory.mktemp("sequential"), sequential=True)


@pytest.fixture(scope="module")
def rows(files: Small) -> list[TrialRow]:
    return run(files)


def test_a_member_is_the_model_that_was_fitted_in_order(files: Small, rows: list[TrialRow]) -> None:
    prepared = prepare(rs.load_study(files.file))
    problem = prepared.problem
    parts = problem.inventory.layers, problem.plugins, prepared.bases.__getitem__
    differing = 0
    for row in rows:
        if not row.artifacts or all(each.is_dense for each in row.point.layers.values()):
            continue
        with Store.open(files.store) as store:
            found = build_model(store, "stripes", row.number, problem.task)
        made = factorize_in_order(problem.model, row.point, *parts, LossPass(problem.task, 2, 0, 2))
        with seeded(0):
            reestimate_batchnorm(problem.task, made, 2)
        assert same(found, made)
        other = rs.layers.factorize(problem.model, row.point, *parts)
        differing += not same(other, made)
    assert differing


def test_trials_are_the_same_in_workers(tmp_path: Path, rows: list[TrialRow]) -> None:
    assert measured(run(small(tmp_path, sequential=True), workers=2)) == measured(rows)


@pytest.mark.usefixtures("cluster")
def test_trials_are_the_same_on_ray(tmp_path: Path, rows: list[TrialRow]) -> None:
    assert measured(run(small(tmp_path, sequential=True), on="ray", workers=2)) == measured(rows)


def test_what_is_tried_first_is_what_it_is_without(tmp_path: Path, rows: list[TrialRow]) -> None:
    plain = measured(run(small(tmp_path)))
    assert [point for point, _ in plain] == [point for point, _ in measured(rows)]
    assert plain != measured(rows)


def test_an_allocated_model_is_fitted_in_order(files: Small) -> None:
    made = rs.run.allocate_model(rs.load_study(files.file), {"params": 0.5}, measure=False)
    problem, table = made.problem, prepare(rs.load_study(files.file)).options
    assert table is not None
    fits = table.fits
    parts = problem.model, made.allocation.point, fits.layers, fits.plugins, fits.bases
    expected = factorize_in_order(*parts, LossPass(problem.task, 2, 0, 2))
    reestimate_batchnorm(problem.task, expected, 2)
    assert same(made.model, expected)
    assert not same(made.model, rs.factorize(*parts[:2], table, [x for x, _ in problem.task.training()][:2]))


def test_the_order_of_the_blocks_is_looked_at_once(files: Small) -> None:
    passed = sequential_pass(begin(rs.load_study(files.file)), 2)
    assert passed is not None
    assert passed.known_order == ("first", "second", "last")


def test_norms_that_keep_their_statistics_keep_them(tmp_path: Path) -> None:
    made = rs.run.allocate_model(
        rs.load_study(small(tmp_path, norms=0, sequential=True).file), {"params": 0.5}, measure=False
    )
    norm, dense = (each.get_submodule("norm").state_dict() for each in (made.model, made.problem.model))
    assert all(torch.equal(tensor, dense[name]) for name, tensor in norm.items())


def test_a_study_does_not_go_on_in_the_other_way(tmp_path: Path) -> None:
    run(small(tmp_path))
    with pytest.raises(rs.RankSearchError, match=r"priors\.sequential"):
        run_study(rs.load_study(small(tmp_path, sequential=True).file), trials=6)


def test_there_is_no_order_without_batches(tmp_path: Path) -> None:
    with pytest.raises(rs.RankSearchError, match="sequential needs batches that the factorized layers are run on"):
        rs.load_study(small(tmp_path, sequential=True, calibration=0).file)
