"""Continuous ranks: within their cost, never behind the exact allocation, the same every time; fronts are monotone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.continuous import Teacher, continuous_front, mask_search, spread_costs
from rank_search.continuous.masks import MaskSearch
from rank_search.errors import LayerError, TaskError
from rank_search.options import OptionTable
from tests.continuous.small_networks import convolutional, images

STEPS = 4


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return convolutional()


@pytest.fixture(scope="module")
def table(model: nn.Module) -> OptionTable:
    layers = {"factorizations": ["svd", "svd-spatial"]}
    return rs.options(model, images(), example=torch.zeros(1, 3, 6, 6), layers=layers)


def search_of(model: nn.Module, table: OptionTable) -> MaskSearch:
    return mask_search(model, table, {"params": 0.0, "macs": 1.0}, Teacher.of(model, images(), "kl"), steps=STEPS)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("cost", ["macs", "params"])
def test_rounding_keeps_the_cost(model: nn.Module, table: OptionTable, cost: str, share: float) -> None:
    bound: dict[str, Any] = {cost: share}
    found = rs.continuous_ranks(model, table, images(), steps=STEPS, **bound)
    assert getattr(found, cost) <= share * table.dense[cost]
    small = rs.factorize(model, found, table)
    assert rs.layers(small, torch.zeros(1, 3, 6, 6)).total.params == found.params


def test_an_absolute_bound_is_the_share_of_it(model: nn.Module, table: OptionTable) -> None:
    half = rs.continuous_ranks(model, table, images(), macs=0.5, steps=STEPS)
    assert rs.continuous_ranks(model, table, images(), macs=table.dense["macs"] / 2, steps=STEPS) == half
    assert rs.continuous_ranks(model, table, images(), macs="50%", steps=STEPS) == half


def test_never_behind_the_allocation(model: nn.Module, table: OptionTable) -> None:
    search = search_of(model, table)
    for share in (0.7, 0.4):
        found = rs.continuous_ranks(model, table, images(), macs=share, steps=STEPS)
        allocated = table.describe(rs.allocate(table, macs=share).point)
        assert search.distance(table.describe(found.point)) <= search.distance(allocated)


def test_the_same_every_time_and_whatever_the_generators(model: nn.Module, table: OptionTable) -> None:
    first = rs.continuous_ranks(model, table, images(), macs=0.4, steps=STEPS)
    torch.rand(7)
    assert rs.continuous_ranks(model, table, images(), macs=0.4, steps=STEPS) == first


def test_the_model_is_left_as_it_was(model: nn.Module, table: OptionTable) -> None:
    before = {name: each.clone() for name, each in model.state_dict().items()}
    rs.continuous_ranks(model, table, images(), macs=0.4, steps=STEPS)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not model.training
    assert all(each.requires_grad and each.grad is None for each in model.parameters())


def test_importances_follow_what_reaches_the_outputs() -> None:
    """Of two branches with the same errors, one counts a hundredth: the other one gets the ranks."""
    network = Branches()
    drawn = [torch.randn(64, 32, generator=torch.Generator().manual_seed(2))]
    table = rs.options(network, drawn, example=torch.zeros(1, 32), layers={"factorizations": ["svd"]})
    teacher = Teacher.of(network, drawn, "squared")
    search = mask_search(network, table, {"params": 1.0, "macs": 0.0}, teacher, steps=10)
    loud, quiet = search.moved(0.6, search.unmoved).tolist()
    assert loud > 0.3 > -0.3 > quiet
    found = rs.continuous_ranks(network, table, drawn, params=0.6, distance="squared", steps=10)
    assert found.layers["loud"].values.get("rank", 32) > found.layers["quiet"].values["rank"]
    even = rs.allocate(table, params=0.6)
    assert search.distance(table.describe(found.point)) < 0.9 * search.distance(table.describe(even.point))


class Branches(nn.Module):
    """Two layers of equal spectra side by side, the second of which hardly counts."""

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(0)
        self.loud, self.quiet = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
        with torch.no_grad():
            for layer in (self.loud, self.quiet):
                left, right = (torch.linalg.qr(torch.randn(32, 32, generator=drawn))[0] for _ in range(2))
                layer.weight.copy_(left @ torch.diag(torch.logspace(0, -1.5, 32)) @ right)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(x) + 0.01 * self.quiet(x)  # type: ignore[no-any-return]


def test_a_front_is_monotone(model: nn.Module, table: OptionTable) -> None:
    shares = {"params": 0.0, "macs": 1.0}
    told: list[tuple[int, int]] = []
    found = continuous_front(
        search_of(model, table), spread_costs(table, shares, 5), lambda done, count, _: told.append((done, count))
    )
    assert told == [(number, 5) for number in range(1, 6)]
    assert [each.cost for each in found] == sorted({each.cost for each in found}, reverse=True)
    assert [each.distance for each in found] == sorted({each.distance for each in found})


def test_without_a_bound_there_is_a_front(model: nn.Module, table: OptionTable) -> None:
    found = rs.continuous_ranks(model, table, images(), points=3, steps=1)
    assert isinstance(found, tuple)
    assert 1 <= len(found) <= 3
    assert all(each.macs < table.dense["macs"] for each in found)


def test_further_costs_lie_in_the_gaps(table: OptionTable) -> None:
    shares = {"params": 0.0, "macs": 1.0}
    few, more = spread_costs(table, shares, 10), spread_costs(table, shares, 14)
    assert more[:10] == few
    assert all(few[-1] < each < 1 for each in more[10:])
    assert len(set(more)) == 14
    assert few == sorted(few, reverse=True)


def test_what_cannot_be_is_refused(model: nn.Module, table: OptionTable) -> None:
    with pytest.raises(LayerError, match=r"No allocation keeps macs ≤ 0.1%.*reach is \d"):
        rs.continuous_ranks(model, table, images(), macs=0.001, steps=1)
    with pytest.raises(LayerError, match="Leave one out"):
        rs.continuous_ranks(model, table, images(), macs=0.5, params=0.5)
    with pytest.raises(TaskError, match="there are no batches"):
        rs.continuous_ranks(model, table, [], macs=0.5)
    with pytest.raises(TaskError, match="one example"):
        rs.continuous_ranks(model, table, [images()[0][:1, :, :1, :1]], macs=0.5)


def test_logits_are_needed_for_kl() -> None:
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1))
    table = rs.options(network, example=torch.zeros(1, 6), layers={"factorizations": ["svd"]})
    with pytest.raises(TaskError, match='Take "squared"'):
        rs.continuous_ranks(network, table, [torch.ones(4, 6)], macs=0.7)
