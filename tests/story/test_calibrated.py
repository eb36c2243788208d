"""A study whose errors are calibrated by measured cuts: in the table that seed points and the sampler start from."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from statistics import fmean, median

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.options.cuts import LEAST_RISE
from rank_search.run import prepare
from rank_search.run.preparation import Prepared
from rank_search.tasks import Task
from tests.story.small import write_study


def prepared(folder: Path, cuts: int) -> Prepared:
    seeds = {"allocations": 4, "fractions": [], "weakenings": []}
    small = write_study(folder, priors={"cuts": cuts}, search={"constraints": [], "seeds": seeds})
    return prepare(rs.load_study(small.file))


def rise(task: Task, table: rs.OptionTable, option: rs.Option) -> float:
    batches = list(islice(task.training(), 2))
    small = rs.factorize(task.model(), option.choices, table, batches)

    def loss(model: nn.Module) -> float:
        with torch.no_grad():
            return fmean(float(task.loss(model.eval(), batch)) for batch in batches)

    return loss(small) - loss(task.model())


def test_seed_points_come_from_the_corrected_errors(tmp_path: Path) -> None:
    found, plain = prepared(tmp_path / "cut", 1), prepared(tmp_path / "plain", 0)
    corrected, table = found.options, plain.options
    assert corrected is not None
    assert table is not None
    assert table.fits.shares == {}
    rises, errors = {}, {}
    for name, options in table.of.items():
        small = [each for each in options[1:] if each.params <= options[0].params / 2]
        cut = sorted(small, key=lambda each: each.error)[0]
        rises[name], errors[name] = rise(plain.problem.task, table, cut), cut.error
    assert min(rises.values()) < 0  # the batch norm after it makes up for this cut, and more: it counts as noise
    least = LEAST_RISE * median(each for each in rises.values() if each > 0)
    factors = {name: max(least, each) / errors[name] for name, each in rises.items()}
    mean = fmean(factors.values())
    for name, options in table.of.items():
        for now, then in zip(corrected.of[name], options, strict=True):
            assert now.error == pytest.approx(then.error * factors[name] / mean, rel=2e-3)
    assert [each.point.key for each in found.seeds] != [each.point.key for each in plain.seeds]


def test_a_study_that_begins_again_measures_no_cut_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rank_search.options import cuts

    measured: list[nn.Module] = []
    whole = cuts.mean_loss
    monkeypatch.setattr(cuts, "mean_loss", lambda task, model, *how: measured.append(model) or whole(task, model, *how))
    first = prepared(tmp_path, 2)
    assert len(measured) == 1 + 2 * len(first.space.groups)
    again = prepared(tmp_path, 2)
    assert len(measured) == 1 + 2 * len(first.space.groups) + 1
    assert [each.point for each in again.seeds] == [each.point for each in first.seeds]
