"""The distance of a batch's statistics from stored ones, against torch's own divergence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from rank_search.sources.norm_statistics import norm_inputs, norms_distance, statistics_distance, stored_norms
from tests.sources import small_networks

MEANS, VARIANCES = st.floats(-3, 3), st.floats(0.05, 4)


def of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@given(MEANS, VARIANCES, MEANS, VARIANCES)
def test_kl_is_the_divergence_of_normal_distributions(
    mean: float, variance: float, stored: float, spread: float
) -> None:
    found = statistics_distance(of(mean), of(variance), of(stored), of(spread))
    expected = kl_divergence(Normal(of(stored), of(spread).sqrt()), Normal(of(mean), of(variance).sqrt()))
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


@given(MEANS, VARIANCES, MEANS, VARIANCES, st.floats(0, 1))
def test_slack_lessens_squared_distances(
    mean: float, variance: float, stored: float, spread: float, slack: float
) -> None:
    numbers = of(mean), of(variance), of(stored), of(spread)
    with_slack, without = (float(statistics_distance(*numbers, "l2", each)) for each in (slack, 0.0))
    assert 0 <= with_slack <= without + 1e-12


@given(MEANS, VARIANCES, MEANS, VARIANCES, st.floats(0, 1))
def test_a_divergence_with_slack_is_one_too(
    mean: float, variance: float, stored: float, spread: float, slack: float
) -> None:
    assert float(statistics_distance(of(mean), of(variance), of(stored), of(spread), "kl", slack)) >= -1e-12


@pytest.mark.parametrize("kind", ["kl", "l2"])
def test_within_the_slack_there_is_no_distance(kind: str) -> None:
    beside = of(1.15), of(4 * 1.1), of(1.0), of(4.0)  # a mean .075 deviations off, a deviation by the factor 1.049
    assert float(statistics_distance(*beside, kind, 0.1)) == 0  # type: ignore[arg-type]
    assert float(statistics_distance(*beside, kind, 0.01)) > 0  # type: ignore[arg-type]


def test_norms_are_watched_at_their_inputs() -> None:
    model = small_networks.images()
    x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with norm_inputs(stored_norms(model)) as seen, torch.no_grad():
        model(x)
    with torch.no_grad():
        first = model[0](x)  # type: ignore[index]
        second = model[3](model[:3](x))  # type: ignore[index]
    for given_, mean, square in zip((first, second), seen.means, seen.squares, strict=True):
        torch.testing.assert_close(mean, given_.mean((2, 3)))
        torch.testing.assert_close(square, given_.square().mean((2, 3)))


def test_the_distance_of_norms_is_the_sum_of_each_ones() -> None:
    model = small_networks.images()
    x = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with norm_inputs(stored_norms(model)) as seen, torch.no_grad():
        model(x)
        total = norms_distance(seen, "kl", 0.0, 0.0)
        ones = [
            statistics_distance(
                *(each.mean((0, 2, 3)), each.var((0, 2, 3), correction=0), norm.running_mean, norm.running_var)
            )
            for norm, each in ((model[1], model[0](x)), (model[4], model[3](model[:3](x))))  # type: ignore[index]
        ]
    torch.testing.assert_close(total, sum(ones), rtol=1e-4, atol=1e-4)


def test_emphasis_counts_an_example_more_in_one_norm() -> None:
    model = small_networks.images()
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    again = x[[0, 0, 1, 2, 2]]  # the first and the third example twice
    only_first = nn.ModuleList([model[1]])  # type: ignore[index]
    with norm_inputs(stored_norms(only_first)) as seen, torch.no_grad():
        model(x)
    with norm_inputs(stored_norms(only_first)) as repeated, torch.no_grad():
        model(again)
    seen.norms.append(seen.norms[0])  # as if there were two, of which the second sees nothing new
    seen.means.append(seen.means[0])
    seen.squares.append(seen.squares[0])
    twice = norms_distance(repeated, "kl", 0.0, 0.0)
    second = statistics_distance(*_of_one(x[[0, 1, 1, 2]], model))
    torch.testing.assert_close(norms_distance(seen, "kl", 0.0, 1.0), twice + second, rtol=1e-4, atol=1e-5)


def _of_one(x: Tensor, model: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.no_grad():
        first = model[0](x)  # type: ignore[index]
    norm = model[1]  # type: ignore[index]
    return first.mean((0, 2, 3)), first.var((0, 2, 3), correction=0), norm.running_mean, norm.running_var


def test_norms_without_stored_statistics_are_none() -> None:
    assert stored_norms(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.LayerNorm(3))) == []
