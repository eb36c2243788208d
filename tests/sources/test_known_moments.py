"""Moments of clipped normal numbers, and of what a forward makes of them, against quadrature and sampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.sources.known_moments import KnownMoments, clipped_moments
from rank_search.sources.moment_rules import MomentMode
from tests.sources import small_networks

SAMPLES = 40_000


def by_quadrature(mean: float, deviation: float, low: float, high: float) -> tuple[float, float]:
    steps = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = (-0.5 * steps.square()).exp() / math.sqrt(2 * math.pi)
    y = (mean + deviation * steps).clamp(low, high)
    return tuple(float(torch.trapezoid(each * density, steps)) for each in (y, y.square()))  # type: ignore[return-value]


@given(st.floats(-4, 4), st.floats(0.01, 3), st.sampled_from([(0, math.inf), (0, 6), (-1, 1), (-math.inf, 0.5)]))
def test_clipped_moments_are_the_integrals(mean: float, deviation: float, bounds: tuple[float, float]) -> None:
    found = clipped_moments(*(torch.tensor([each], dtype=torch.float64) for each in (mean, deviation**2)), *bounds)
    for one, other in zip(found, by_quadrature(mean, deviation, *bounds), strict=True):
        assert float(one) == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("mean", [-1.5, 0.0, 0.5, 9.0])
def test_without_variance_they_are_of_the_clipped_mean(mean: float) -> None:
    first, second = clipped_moments(torch.tensor([mean]), torch.zeros(1), 0.0, 6.0)
    clipped = min(max(mean, 0.0), 6.0)
    assert float(first) == pytest.approx(clipped, abs=1e-6)
    assert float(second) == pytest.approx(clipped**2, abs=1e-5)


def test_without_bounds_they_are_the_normal_ones() -> None:
    found = clipped_moments(torch.tensor([0.7]), torch.tensor([2.0]), -math.inf, math.inf)
    assert [float(each) for each in found] == pytest.approx([0.7, 0.49 + 2.0])


def test_a_number_within_the_bounds_is_not_clipped_again() -> None:
    once = KnownMoments(torch.zeros(3), torch.ones(3)).clipped(0.0, math.inf)
    assert once.clipped(0.0, math.inf) is once
    assert once.clipped(0.0, 6.0) is not once


NORM = small_networks.with_statistics(nn.BatchNorm2d(4))


def normal() -> KnownMoments:
    x = torch.zeros(1, 4, 4, 4)
    with torch.no_grad(), MomentMode() as mode:
        found = mode.known(NORM(x))
    assert found is not None
    return found


def drawn() -> Tensor:
    """Of what the norm gives, numbers independent of each other."""
    known, generator = normal(), torch.Generator().manual_seed(0)
    noise = torch.randn(SAMPLES, *known.mean.shape[1:], generator=generator)
    return known.mean.float() + known.variance.float().sqrt() * noise


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: x,
    "relu": F.relu,
    "relu twice": lambda x: F.relu(torch.relu(x)),
    "relu in place": lambda x: F.relu(x.clone(), inplace=True),
    "relu6": F.relu6,
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "clamp": lambda x: x.clamp(min=-0.2),
    "clamp by place": lambda x: torch.clamp(x, 0.1, 0.6),
    "sum with itself": lambda x: x + x,
    "scaled": lambda x: 2 * F.relu(x) / 4 - 1,
    "from one": lambda x: 1 - F.relu(x),
    "negative, then relu": lambda x: torch.relu(-1.5 * x + 0.1),
    "average": nn.AvgPool2d(2),
    "average, strided": lambda x: F.avg_pool2d(x.relu(), (2, 1), stride=1),
    "global average": lambda x: nn.Flatten()(nn.AdaptiveAvgPool2d(1)(F.relu(x))),
    "to two by two": nn.AdaptiveAvgPool2d(2),
    "mean": lambda x: F.relu(x).mean((2, 3)),
    "mean, kept": lambda x: x.mean(dim=[2, 3], keepdim=True),
    "cut and padded": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)),
    "padded with ones, then clipped": lambda x: F.pad(x, (1, 1), value=1.0).clamp(0, 0.5),
    "halves": lambda x: torch.cat([x[:, 2:], F.relu(x[:, :2])], dim=1),
    "turned": lambda x: x.permute(0, 2, 3, 1).reshape(len(x), 16, 4).transpose(1, 2),
    "identity, dropout": nn.Sequential(nn.Identity(), nn.Dropout(), nn.Dropout2d()).eval(),
    "two halves added": lambda x: x[:, :2] + F.relu(x[:, 2:]),
    "two halves subtracted": lambda x: torch.sub(x[:, :2], x[:, 2:], alpha=0.5),
}


@pytest.mark.parametrize("name", CASES)
def test_moments_follow_the_numbers(name: str) -> None:
    operation = CASES[name]
    with torch.no_grad():
        y = operation(drawn())
        with MomentMode() as mode:
            found = mode.known(operation(NORM(torch.zeros(1, 4, 4, 4))))
    assert found is not None
    assert found.mean.shape[1:] == y.shape[1:]
    assert float((found.mean[0] - y.mean(0)).abs().max()) < 0.04
    assert float(((found.variance[0] - y.var(0)).abs() / (0.1 + y.var(0))).max()) < 0.05
    assert found.least <= float(y.min()) + 1e-6
    assert found.most >= float(y.max()) - 1e-6


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": nn.MaxPool2d(2),
    "product of two": lambda x: x * x,
    "sigmoid": torch.sigmoid,
    "added tensor": lambda x: x + torch.ones(4, 4, 4),
    "padded average": nn.AvgPool2d(3, padding=1),
    "uneven average": nn.AdaptiveAvgPool2d(3),
    "dropout that drops": lambda x: F.dropout(x, 0.5, training=True),
    "changed in place": lambda x: F.relu(x.exp_()),
    "changed through a view": lambda x: (x.view(-1).exp_(), x)[1],
    "joined with what is not known": lambda x: torch.cat([x, torch.ones(1, 4, 4, 4)]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_rule_is_not_known(name: str) -> None:
    with torch.no_grad(), MomentMode() as mode:
        assert mode.known(UNKNOWN[name](NORM(torch.zeros(1, 4, 4, 4)))) is None


def test_norms_that_take_the_statistics_of_the_batch_say_nothing() -> None:
    training, without = nn.BatchNorm2d(4).train(), nn.BatchNorm2d(4, track_running_stats=False).eval()
    with torch.no_grad(), MomentMode() as mode:
        x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        assert mode.known(training(x)) is None
        assert mode.known(without(x)) is None


def test_a_norm_without_weights_gives_standard_numbers() -> None:
    norm = nn.BatchNorm1d(4, affine=False, eps=0.25).eval()
    norm.running_var.fill_(0.75)  # type: ignore[union-attr]
    with torch.no_grad(), MomentMode() as mode:
        found = mode.known(norm(torch.zeros(2, 4)))
    assert found is not None
    torch.testing.assert_close(found.mean, torch.zeros(2, 4, dtype=torch.float64))
    torch.testing.assert_close(found.variance, torch.full((2, 4), 0.75, dtype=torch.float64))
