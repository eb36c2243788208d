from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rank_search.quantization.entropy_models import (
    ENTROPY_MODELS,
    EntropyModel,
    Laplace,
    Learned,
    logistic_bits,
    spread,
    sums,
)
from rank_search.quantization.settings import PriorKind

KINDS: list[PriorKind] = ["laplace", "logistic", "density"]


def density_of(kind: PriorKind, groups: int = 1, scale: float = 2.0, bent: bool = True) -> EntropyModel:
    torch.manual_seed(3)
    made = ENTROPY_MODELS[kind](groups, scale).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter) if bent else 0
    return made


def exact_logistic_bits(x: Tensor, scale: Tensor) -> Tensor:
    """Straight from the distribution function, on the side where it does not cancel."""
    left = -x.abs()
    return -(torch.sigmoid((left + 0.5) / scale) - torch.sigmoid((left - 0.5) / scale)).log2()


def plain_bits(density: EntropyModel, x: Tensor) -> Tensor:
    """Of groups × numbers, with gradients by autograd, from the distribution functions."""
    if isinstance(density, Learned):
        return density.bits(x)
    exact = exact_laplace_bits if isinstance(density, Laplace) else exact_logistic_bits
    return exact(x, density.log_scale.exp()[:, None])  # type: ignore[operator, union-attr]


def exact_laplace_bits(x: Tensor, scale: Tensor) -> Tensor:
    left = -x.abs()

    def below(t: Tensor) -> Tensor:
        return torch.where(t < 0, 0.5 * torch.exp(t.clamp(max=0) / scale), 1 - 0.5 * torch.exp(-t.clamp(min=0) / scale))

    return -(below(left + 0.5) - below(left - 0.5)).log2()


@settings(deadline=None)
@given(st.floats(-40, 40), st.floats(0.06, 500))
def test_logistic_bits_and_their_derivatives_are_those_of_the_distribution(x: float, scale: float) -> None:
    points = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    scales = torch.tensor([scale], dtype=torch.float64, requires_grad=True)
    bits, by_x, by_scale = logistic_bits(points.detach(), scales.detach())
    assert by_x.isfinite()
    assert by_scale.isfinite()
    if abs(x) / scale > 300:  # the plain form underflows far in the tail; ours must not
        assert float(bits) * math.log(2) == pytest.approx((abs(x) - 0.5) / scale, rel=1e-6, abs=1e-6)
        return
    expected = exact_logistic_bits(points, scales)
    slopes = torch.autograd.grad(expected.sum(), (points, scales))
    assert torch.allclose(bits, expected.detach(), rtol=1e-6, atol=1e-9)
    assert torch.allclose(by_x, slopes[0], rtol=1e-6, atol=1e-8)
    assert torch.allclose(by_scale, slopes[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.2, 3.0, 50.0])
def test_entropy_model_masses_of_whole_numbers_add_up_to_one(kind: PriorKind, scale: float) -> None:
    k = torch.arange(-20_000.0, 20_001.0, dtype=torch.float64)[None]
    masses = torch.exp2(-density_of(kind, scale=scale).bits(k).detach())
    assert float(masses[masses > 1e-8].sum()) == pytest.approx(1, abs=1e-3)


def test_learned_distribution_rises_from_zero_to_one() -> None:
    density = density_of("density", groups=4)
    assert isinstance(density, Learned)
    with torch.no_grad():
        for bend in density.bends:
            bend.fill_(-5.0)  # as bent as can be
    logits = density.logits(torch.linspace(-500, 500, 5001, dtype=torch.float64).expand(4, -1))
    assert bool((logits.diff(dim=1) > 0).all())
    logits = logits.detach()
    assert float(torch.sigmoid(logits[:, 0]).max()) < 1e-3
    assert float(torch.sigmoid(logits[:, -1]).min()) > 1 - 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_model_costs_and_their_derivatives_are_those_of_the_bits(kind: PriorKind) -> None:
    """Against autograd; the learned density is read from a table, which is close, not equal."""
    density, sizes = density_of(kind, groups=2), [400, 100]
    x = (4 * torch.randn(500, dtype=torch.float64)).requires_grad_()
    rows = [part[None] for part in torch.split(x, sizes)]
    expected = sum(plain_bits(density, row.expand(2, -1))[place].sum() for place, row in enumerate(rows))
    assert isinstance(expected, Tensor)
    slopes = torch.autograd.grad(expected, [x, *density.parameters()])
    bits, by_x, by_parameters = density.costs(x.detach().clone(), sizes)
    close = 2e-2 if kind == "density" else 1e-6
    assert float(bits) == pytest.approx(float(expected.detach()), rel=close / 10)
    assert torch.allclose(by_x, slopes[0], atol=close)
    for found, slope in zip(by_parameters, slopes[1:], strict=True):
        assert torch.allclose(found, slope, rtol=close, atol=close)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_models_begin_near_the_same_distribution(kind: PriorKind) -> None:
    torch.manual_seed(0)
    sample = torch.distributions.Laplace(0.0, 3.0).sample((1, 20_000)).round()
    entropy = math.log2(2 * math.e * 3.0)
    assert float(ENTROPY_MODELS[kind](1, 3.0).bits(sample).mean().detach()) == pytest.approx(entropy, abs=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_models_learn_numbers_to_near_their_entropy(kind: PriorKind) -> None:
    torch.manual_seed(0)
    sample = torch.distributions.Laplace(0.0, 1.0).sample((5000,)).round()
    _, counts = sample.unique(return_counts=True)
    share = counts / counts.sum()
    entropy = -float((share * share.log2()).sum())
    density = ENTROPY_MODELS[kind](1, 8.0)
    optimizer = torch.optim.Adam(density.parameters(), 0.03)
    for _ in range(400):
        optimizer.zero_grad()
        _, _, slopes = density.costs(sample.clone(), [5000])
        for parameter, slope in zip(density.parameters(), slopes, strict=True):
            parameter.grad = slope / 5000
        optimizer.step()
    assert float(density.bits(sample[None]).mean().detach()) == pytest.approx(entropy, rel=0.03)


def test_spreading_and_summing_are_adjoint() -> None:
    sizes, numbers, flat = [3, 1, 4], torch.randn(3), torch.randn(8)
    assert torch.allclose((spread(numbers, sizes) * flat).sum(), (numbers * sums(flat, sizes)).sum())
