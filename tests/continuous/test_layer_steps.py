"""Masks over the steps of layers' paths: the cost is held, and without a temperature they are the allocation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rank_search.continuous.layer_steps import LayerPath, Steps, layer_paths
from rank_search.options import Option
from rank_search.options.allocation import lagrangian_front

FIXED = 0.05


def path(steps: list[tuple[float, float]]) -> LayerPath:
    """One with these steps: what each costs, and the logarithm of what it saves for a unit of that."""
    costs = np.cumsum([0.01, *(cost for cost, _ in steps)])
    return LayerPath((), tuple(map(float, costs)), tuple(sorted((price for _, price in steps), reverse=True)))


numbers = st.floats(-3, 3)
paths = st.lists(st.lists(st.tuples(st.floats(0.01, 0.3), numbers), max_size=4).map(path), min_size=1, max_size=3)


def importance_of(found: list[LayerPath], drawn: list[float]) -> Tensor:
    return torch.tensor(drawn[: len(found)], dtype=torch.float64)


@settings(deadline=None)
@given(paths, st.lists(numbers, min_size=3, max_size=3), st.floats(0.05, 1), st.floats(0.01, 0.99))
def test_the_relaxed_cost_is_held(found: list[LayerPath], drawn: list[float], temperature: float, share: float) -> None:
    steps, importance = Steps(found, FIXED), importance_of(found, drawn)
    cost = steps.least + share * (steps.most - steps.least)
    masks = steps.masks(importance, steps.price(importance, temperature, cost), temperature)
    assert float(steps.cost(masks)) == pytest.approx(cost, abs=1e-9)


@settings(deadline=None)
@given(paths, st.lists(numbers, min_size=3, max_size=3), st.floats(0.2, 1))
def test_along_the_gradient_the_cost_stays(found: list[LayerPath], drawn: list[float], temperature: float) -> None:
    steps = Steps(found, FIXED)
    importance = importance_of(found, drawn).requires_grad_(True)
    price = steps.price(importance, temperature, (steps.least + steps.most) / 2)
    cost = steps.cost(steps.masks(importance, price, temperature))
    if cost.requires_grad and price.requires_grad:
        (gradient,) = torch.autograd.grad(cost, importance)
        assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-9)


@settings(deadline=None)
@given(paths, st.lists(numbers, min_size=3, max_size=3), numbers)
def test_without_temperature_masks_are_a_cut_of_each_path(
    found: list[LayerPath], drawn: list[float], price: float
) -> None:
    steps, importance = Steps(found, FIXED), importance_of(found, drawn)
    masks = torch.split(steps.masks(importance, price, 1e-9), list(steps.counts))
    for each, mask, w in zip(found, masks, importance, strict=True):
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
        if all(abs(p + float(w) - price) > 1e-6 for p in each.prices):
            assert mask.round().tolist() == [float(p + float(w) > price) for p in each.prices]


def options(costs: list[int], errors: list[float]) -> tuple[Option, ...]:
    return tuple(Option({}, cost, cost, error) for cost, error in zip(costs, errors, strict=True))


class TableOf:
    """What `layer_paths` reads of a table."""

    def __init__(self, *groups: tuple[Option, ...]) -> None:
        self.of = dict(enumerate(groups))


def test_a_path_is_the_hull_from_the_cheapest_option_on() -> None:
    one = options([8, 4, 2, 1], [0.0, 3.9, 3.0, 6.0])
    (found,) = layer_paths(TableOf(one), lambda option: option.macs / 8)  # type: ignore[arg-type]
    assert [each.params for each in found.options] == [1, 2, 8]
    assert np.exp(found.prices) == pytest.approx([3 / (1 / 8), 3 / (6 / 8)])


def test_at_a_corner_of_the_front_hard_masks_are_the_allocation() -> None:
    groups = options([8, 4, 2, 1], [0.0, 1.0, 3.0, 9.0]), options([6, 3, 1], [0.0, 0.7, 4.0])
    found = layer_paths(TableOf(*groups), lambda option: float(option.macs))  # type: ignore[arg-type]
    steps, plain = Steps(found, 0.0), torch.zeros(2, dtype=torch.float64)
    costs, errors = [[o.macs for o in each] for each in groups], [[o.error for o in each] for each in groups]
    for corner in lagrangian_front(costs, errors):
        masks = torch.split(steps.masks(plain, steps.price(plain, 1e-3, corner.cost), 1e-3), list(steps.counts))
        taken = [int(mask.round().sum()) for mask in masks]
        chosen = [each.options[place] for each, place in zip(found, taken, strict=True)]
        assert chosen == [each[place] for each, place in zip(groups, corner.chosen, strict=True)]


def test_a_cost_out_of_reach_is_met_as_closely_as_can_be() -> None:
    steps = Steps([path([(0.1, 1.0), (0.2, 0.0)])], FIXED)
    importance = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for cost, wanted in ((0.0, steps.least), (2.0, steps.most)):
        masks = steps.masks(importance, steps.price(importance, 0.1, cost), 0.1).detach()
        assert float(steps.cost(masks)) == pytest.approx(wanted, abs=1e-9)
