"""Moments in closed form, against those of numbers that are drawn as the formulas take them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rank_search.errors import SourceError
from rank_search.layers import Layer, take_inventory
from rank_search.sources import analytic_moments
from rank_search.sources.analytic import second_moment
from rank_search.sources.known_moments import KnownMoments
from rank_search.tasks import moments_of_inputs, seeded
from rank_search.testing import GEOMETRIES
from tests.sources import small_networks

SAMPLES = 3000
ZERO_PADDED = [each for each in GEOMETRIES if not each.one_hot and each.padding_mode == "zeros"]


@pytest.mark.parametrize("layer", ZERO_PADDED, ids=lambda each: each.name)
def test_the_second_moment_is_that_of_independent_numbers(layer: Layer) -> None:
    with seeded(0):
        shape = layer.inputs[0] if layer.inputs else (1, 5, layer.in_features)
        mean, variance = torch.randn(shape)[:1], torch.rand(shape)[:1] + 0.1
        x = mean + variance.sqrt() * torch.randn(SAMPLES, *mean.shape[1:])
    found = second_moment(layer, KnownMoments(mean, variance))
    rows = layer.columns(x, 10**9).double()
    rows = rows if layer.groups == 1 else rows.view(len(rows), layer.groups, -1).transpose(0, 1)
    sampled = rows.mT @ rows / rows.shape[-2]
    assert found.shape == sampled.shape
    assert float((found - sampled).norm() / sampled.norm()) < 0.05


def independent(norm: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """What a norm gives on numbers, all independent, that have its statistics."""
    with seeded(0):
        noise = torch.randn(shape)
    at = (1, -1, *(1 for _ in shape[2:]))
    x = noise * norm.running_var.sqrt().view(at) + norm.running_mean.view(at)  # type: ignore[operator, union-attr]
    with torch.no_grad():
        found: Tensor = norm(x)
    return found


def test_a_chain_of_norms_has_the_moments_of_independent_numbers() -> None:
    model = small_networks.images()
    layers = take_inventory(model, torch.zeros(1, 2, 6, 6)).layers
    found = analytic_moments(model, torch.zeros(1, 2, 6, 6), layers)
    assert list(found) == ["3", "8"]  # nothing is known of the inputs of the first
    one = model[2](independent(model[1], (SAMPLES, 5, 6, 6)))  # type: ignore[index]
    two = model[5:8](independent(model[4], (SAMPLES, 6, 3, 3)))  # type: ignore[index]
    for name, x in (("3", one), ("8", two)):
        sampled = moments_of_inputs(model.get_submodule(name), {"": layers[name]}, [x])[""]
        assert found[name].dtype == torch.float32
        assert found[name].shape == sampled.shape
        assert float((found[name] - sampled).norm() / sampled.norm()) < 0.05


class Block(nn.Module):
    """A shortcut around two convolutions, and one function for both sums."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(5):
            self.first, self.second, self.third = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3))
            self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        small_networks.with_statistics(self, seed=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = torch.relu(self.norm1(self.first(x)))
        inner = self.norm2(self.second(shortcut))
        inner += shortcut
        found: Tensor = self.third(torch.relu_(inner))
        return found


def test_a_residual_sum_is_taken_as_normal() -> None:
    model = Block()
    layers = take_inventory(model, torch.zeros(1, 4, 5, 5)).layers
    found = analytic_moments(model, torch.zeros(1, 4, 5, 5), layers)
    assert list(found) == ["second", "third"]
    shortcut = torch.relu(independent(model.norm1, (SAMPLES, 4, 5, 5)))
    inner = independent(model.norm2, (SAMPLES, 4, 5, 5)) + shortcut.flip(0)
    sampled = moments_of_inputs(model.third, {"": layers["third"]}, [torch.relu(inner)])[""]
    assert float((found["third"] - sampled).norm() / sampled.norm()) < 0.05


class Twice(nn.Module):
    """The same layer behind a norm, and again behind what has no rule."""

    def __init__(self, then: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer, self.then = nn.BatchNorm1d(3), nn.Linear(3, 3), then
        small_networks.with_statistics(self)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(self.then(self.layer(self.norm(x))))
        return found


def test_a_layer_that_runs_twice_has_its_mean_moment_or_none() -> None:
    example, known = torch.zeros(1, 3), small_networks.with_statistics(nn.BatchNorm1d(3), seed=9)
    layers = take_inventory(Twice(known), example).layers
    assert analytic_moments(Twice(nn.Sigmoid()), example, layers) == {}
    both = analytic_moments(Twice(known), example, layers)["layer"]
    single = [
        analytic_moments(nn.ModuleDict({"layer": nn.Sequential(norm, nn.Linear(3, 3))})["layer"], example, {"1": each})
        for norm in (Twice(known).norm, known)
        for each in [take_inventory(nn.Sequential(norm, nn.Linear(3, 3)), example).layers["1"]]
    ]
    torch.testing.assert_close(both, (single[0]["1"] + single[1]["1"]) / 2)


def test_the_model_is_left_alone() -> None:
    model = small_networks.images().train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    layers = take_inventory(model, torch.zeros(1, 2, 6, 6)).layers
    analytic_moments(model, torch.zeros(1, 2, 6, 6), layers)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())


def test_a_model_without_norms_has_none() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    assert analytic_moments(model, torch.zeros(1, 3), take_inventory(model, torch.zeros(1, 3)).layers) == {}


def test_an_example_that_does_not_fit_is_told() -> None:
    model = small_networks.vectors()
    layers = take_inventory(model, torch.zeros(1, 7)).layers
    with pytest.raises(SourceError, match="does not run on the example; its forward raised RuntimeError"):
        analytic_moments(model, torch.zeros(1, 8), layers)
