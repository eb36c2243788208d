"""Learned importances: errors of a table by what they do to the outputs; the curve of each layer keeps its form."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import rank_search as rs
from rank_search.continuous import Teacher, mask_search, middle_costs, spread_costs, with_importances
from rank_search.errors import TaskError
from rank_search.options import OptionTable
from tests.continuous.small_networks import convolutional, images
from tests.continuous.test_continuous_ranks import Branches

INPUTS = [torch.randn(64, 32, generator=torch.Generator().manual_seed(2))]
BY_MACS = {"params": 0.0, "macs": 1.0}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Branches()


@pytest.fixture(scope="module")
def table(network: nn.Module) -> OptionTable:
    return rs.options(network, INPUTS, example=torch.zeros(1, 32), layers={"factorizations": ["svd"]})


@pytest.fixture(scope="module")
def learned(network: nn.Module, table: OptionTable) -> OptionTable:
    return rs.learn_importances(network, table, INPUTS, distance="squared", steps=10)


def test_allocations_come_closer_to_the_dense_model(
    network: nn.Module, table: OptionTable, learned: OptionTable
) -> None:
    """Of two branches with the same errors, one counts a hundredth."""
    teacher = Teacher.of(network, INPUTS, "squared")
    search = mask_search(network, table, BY_MACS, teacher, steps=0)
    for share in (0.8, 0.6, 0.4):
        plain, better = (rs.allocate(each, params=share).point for each in (table, learned))
        assert search.distance(table.describe(better)) < search.distance(table.describe(plain))


def test_the_curve_of_each_layer_keeps_its_form(table: OptionTable, learned: OptionTable) -> None:
    loud, quiet = (
        [new.error / old.error for old, new in zip(table.of[name], learned.of[name], strict=True) if old.error > 0]
        for name in table.of
    )
    assert loud == pytest.approx([loud[0]] * len(loud), rel=1e-3)
    assert quiet == pytest.approx([quiet[0]] * len(quiet), rel=1e-3)
    assert loud[0] > 1.3 * quiet[0]


def test_the_model_is_left_as_it_was_and_numbers_are_the_same_every_time() -> None:
    model = convolutional()
    table = rs.options(model, images(), example=torch.zeros(1, 3, 6, 6), layers={"factorizations": ["svd"]})
    before = {name: each.clone() for name, each in model.state_dict().items()}
    first = rs.learn_importances(model, table, images(), costs=2, steps=3)
    torch.rand(7)
    again = rs.learn_importances(model, table, images(), costs=2, steps=3)
    assert [each.error for each in first] == [each.error for each in again]
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_none_asked_for_leaves_the_table(network: nn.Module, table: OptionTable) -> None:
    assert rs.learn_importances(network, table, [], costs=0) is table


def test_batches_are_needed(network: nn.Module, table: OptionTable) -> None:
    with pytest.raises(TaskError, match="there are no batches"):
        rs.learn_importances(network, table, [])


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=2))
def test_factors_have_the_mean_1(table: OptionTable, logarithms: list[float]) -> None:
    found = with_importances(table, torch.tensor(logarithms, dtype=torch.float64))
    shares = list(found.fits.shares.values())
    assert fmean(shares) == pytest.approx(1.0)
    assert math.log(shares[0] / shares[1]) == pytest.approx(logarithms[0] - logarithms[1], abs=1e-9)


def test_on_top_of_what_was_calibrated_before(table: OptionTable) -> None:
    before = table.with_shares({"loud": 1.5, "quiet": 0.5})
    even = with_importances(before, torch.zeros(2, dtype=torch.float64))
    assert dict(even.fits.shares) == pytest.approx({"loud": 1.5, "quiet": 0.5})


@given(count=st.integers(1, 6), most=st.floats(0.3, 1.0))
def test_costs_lie_within_those_of_a_front(table: OptionTable, count: int, most: float) -> None:
    found = middle_costs(table, BY_MACS, count, most)
    (least,) = spread_costs(table, BY_MACS, 1)
    assert len(found) == count
    assert found == sorted(found, reverse=True)
    assert max(found) <= most
    assert min(found) >= min(least, most) * (1 - 1e-9)
    if most > least:
        assert max(found) > min(found) or count == 1
        assert min(found) > least
