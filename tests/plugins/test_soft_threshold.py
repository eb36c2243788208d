"""Soft thresholds: the laws, the flow of s in closed form, and what is left when it is folded."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from rank_search_plugins.soft_rank import SoftRank
from rank_search_plugins.soft_threshold import SoftThreshold
from rank_search_plugins.thresholds import RATE, START, move_, soft
from torch import Tensor, nn

from rank_search.layers import DirectBases, Factorization, Layer, settled_form
from rank_search.testing import FactorizationLaws
from rank_search.training import TrainingSettings
from rank_search.training.after_steps import AfterSteps
from rank_search.training.schedules import rate_factor

LINEAR = Layer("x", "linear", (8, 12), dtype=torch.float64, inputs=((3, 12),))
CONV = Layer("x", "conv2d", (5, 8, 3, 3), padding=((1, 1), (1, 1)), dtype=torch.float64, inputs=((2, 8, 6, 4),))
BOTH = pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])


class TestSoftThresholdLaws(FactorizationLaws):
    factorization = SoftThreshold


class TestSoftRankLaws(FactorizationLaws):
    factorization = SoftRank
    equality = True


def weight_of(layer: Layer) -> Tensor:
    return torch.randn(layer.shape, generator=torch.Generator().manual_seed(0), dtype=layer.dtype)


def fitted(form: Factorization, weight: Tensor) -> Factorization:
    form.fit(weight, DirectBases(weight))
    return form


def at(form: Factorization, s: float) -> Factorization:
    with torch.no_grad():
        form.get_parameter("s").fill_(s)
    return form


def new_s(value: float = START) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value))


# ---- the flow ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("total", [7, 400])
def test_decay_alone_is_the_closed_form_at_any_length_and_schedule(schedule: str, total: int) -> None:
    """s(t) = s₀·exp(−folds · integral of the learning rate so far / integral of all of it)."""
    settings = TrainingSettings.model_validate({"schedule": schedule})
    rates = [rate_factor(settings, step, total) for step in range(total)]
    form = SoftThreshold(LINEAR, folds=5.0)
    fitted(form, weight_of(LINEAR))
    after = AfterSteps(form, settings, total)
    for step in range(total):
        after.move_(step)
        passed = sum(rates[: step + 1]) / sum(rates)
        assert float(form.s.detach()) == pytest.approx(START * math.exp(-5 * passed), rel=1e-4)


def test_it_rises_as_sgd_with_weight_decay_lets_it() -> None:
    """The published recipe: SGD, cosine, the decay its only pull; its e-folds are the sum of rate · decay."""
    steps, rate, decay = 500, 0.1, 0.1
    published = new_s()
    optimizer = torch.optim.SGD([published], rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    published.grad = torch.zeros_like(published)
    total = 0.0
    for _ in range(steps):
        total += optimizer.param_groups[0]["lr"] * decay
        optimizer.step()
        schedule.step()
    form = SoftThreshold(LINEAR, folds=total)
    fitted(form, weight_of(LINEAR))
    after = AfterSteps(form, TrainingSettings(schedule="cosine"), steps)
    for step in range(steps):
        after.move_(step)
    assert float(form.s.detach()) == pytest.approx(float(published.detach()), rel=0.01)


def test_the_gradient_pulls_as_the_flow_says_and_is_bounded_by_the_decay() -> None:
    s, share, folds = new_s(-2.0), 1e-3, 4.0
    rise = 2 * (1 - math.exp(-folds * share))
    for gradient, pull in [(0.3 * rise / (RATE * share), 0.3 * rise), (1e3, 2 * rise), (-1e3, -2 * rise)]:
        with torch.no_grad():
            s.fill_(-2.0)
        s.grad = torch.tensor(gradient)
        move_(s, folds, share)
        assert float(s.detach()) == pytest.approx(-2.0 + rise - pull, rel=1e-6)


def test_a_gradient_stops_it_where_both_pulls_are_equal() -> None:
    """Loss a·g(s): at rest folds·|s| = RATE·a·g'(s)."""
    folds, steps, slope = 30.0, 5000, 0.01
    s = new_s()
    for _ in range(steps):
        s.grad = slope * torch.autograd.grad(s.sigmoid(), s)[0]
        move_(s, folds, 1 / steps)
    at_rest = float(s.detach())
    g = 1 / (1 + math.exp(-at_rest))
    assert folds * abs(at_rest) == pytest.approx(RATE * slope * g * (1 - g), rel=0.05)


def test_a_frozen_one_stays() -> None:
    s = new_s().requires_grad_(False)
    move_(s, 5.0, 0.5)
    assert float(s.detach()) == pytest.approx(START)


# ---- the forms -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("s", [-3.0, -1.0])
def test_a_weight_loses_what_is_under_its_threshold(layer: Layer, s: float) -> None:
    weight = weight_of(layer)
    form = at(fitted(SoftThreshold(layer, folds=4.0), weight), s)
    least = float(weight.abs().max()) / (1 + math.exp(-s))
    wanted = [math.copysign(max(0.0, abs(each) - least), each) for each in weight.flatten().tolist()]
    assert form.dense().flatten().tolist() == pytest.approx(wanted, abs=1e-6)


@BOTH
def test_components_lose_singular_values_and_those_under_the_threshold_are_none(layer: Layer) -> None:
    """Right after the fit gains are singular values: their soft threshold is the proximal step of the nuclear norm."""
    weight = weight_of(layer)
    weight *= 0.6 ** torch.arange(len(weight)).view(-1, *[1] * (weight.dim() - 1))  # no flat spectrum
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    least = 1 / (1 + math.exp(0.5)) * values.max()
    wanted = left @ torch.diag((values - least).relu()) @ right
    form = at(fitted(SoftRank(layer, rank=len(values), folds=4.0), weight), -0.5)
    assert torch.allclose(form.dense().flatten(1), wanted, atol=1e-6)
    assert 0 < int((values > least).sum()) < len(values)
    form.fold()
    small = settled_form(form).form
    assert small.values == {"rank": int((values > least).sum()), "folds": 4.0}
    assert torch.allclose(small.dense().flatten(1), wanted, atol=1e-6)


@BOTH
def test_how_the_norm_is_shared_between_the_factors_changes_nothing(layer: Layer) -> None:
    form = at(fitted(SoftRank(layer, rank=4, folds=4.0), weight_of(layer)), -1.0)
    before = form.dense().detach()
    scales = torch.tensor([3.0, 0.1, 1.0, 20.0], dtype=torch.float64)
    with torch.no_grad():
        form.get_parameter("left").mul_(scales)
        form.get_parameter("right").div_(scales.view(-1, *[1] * (len(layer.shape) - 1)))
    assert torch.allclose(form.dense(), before, atol=1e-9)


@BOTH
@pytest.mark.parametrize("s", [START, -0.2, -1e-6])
def test_the_largest_stays(layer: Layer, s: float) -> None:
    forms = SoftRank(layer, rank=3, folds=4.0), SoftThreshold(layer, folds=4.0)
    assert all(bool(at(fitted(form, weight_of(layer)), s).dense().any()) for form in forms)


@BOTH
@pytest.mark.parametrize("made", [{"folds": 4.0}, {"rank": 4, "folds": 4.0}], ids=["weights", "gains"])
def test_folded_it_computes_the_same(layer: Layer, made: dict[str, float]) -> None:
    plugin: type[Factorization] = SoftRank if "rank" in made else SoftThreshold
    form = at(fitted(plugin(layer, **made), weight_of(layer)), -0.7)
    x = torch.randn(layer.inputs[0], generator=torch.Generator().manual_seed(1), dtype=layer.dtype)
    dense, out = form.dense().detach(), form(x).detach()
    folded = copy.deepcopy(form)
    folded.fold()
    if plugin is SoftThreshold:
        assert torch.equal(folded.get_parameter("full") == 0, dense == 0)
        assert bool((dense == 0).any())
    assert torch.allclose(folded.dense(), dense, atol=1e-9)
    assert torch.allclose(folded(x), out, atol=1e-9)
    assert not torch.equal(dense, weight_of(layer))


def test_half_precision_is_thresholded_in_single() -> None:
    weight, s = torch.tensor([1.0, 0.0625 + 2**-11], dtype=torch.bfloat16), torch.tensor(-2.72)
    least = s.sigmoid()  # .0618: in half precision another number
    assert soft(weight, s).tolist() == (weight.float() - least).to(torch.bfloat16).tolist()
