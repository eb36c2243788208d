from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.errors import TrialError
from rank_search.layers import DirectBases, Layer, load_plugin
from rank_search.quantization import CodingSettings, Quantizer, latents, weight_count
from rank_search.quantization.entropy_models import laplace_bits
from rank_search.training.schedules import steps_are_final


def exact_bits(x: Tensor, scale: Tensor) -> Tensor:
    """Straight from the distribution function, in float64, on the side where it does not cancel."""
    left = -x.abs()

    def below(t: Tensor) -> Tensor:
        return torch.where(t < 0, 0.5 * torch.exp(t / scale), 1 - 0.5 * torch.exp(-t / scale))

    return -(below(left + 0.5) - below(left - 0.5)).log2()


@given(st.floats(-40, 40), st.floats(0.05, 500))
def test_laplace_bits_and_their_derivatives_are_those_of_the_distribution(x: float, scale: float) -> None:
    points = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    scales = torch.tensor([scale], dtype=torch.float64, requires_grad=True)
    expected = exact_bits(points, scales)
    bits, by_x, by_scale = laplace_bits(points.detach(), scales.detach())
    if abs(x) / scale > 300:  # the plain form underflows far in the tail; ours must not
        far = (abs(x) - 0.5) / scale + math.log(2) - math.log1p(-math.exp(-1 / scale))  # the mass in closed form
        assert float(bits) * math.log(2) == pytest.approx(far, rel=1e-6)
        assert by_x.isfinite()
        assert by_scale.isfinite()
        return
    slopes = torch.autograd.grad(expected.sum(), (points, scales))
    assert torch.allclose(bits, expected.detach(), rtol=1e-6, atol=1e-9)
    assert torch.allclose(by_x, slopes[0], rtol=1e-6, atol=1e-9)
    assert torch.allclose(by_scale, slopes[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 100.0, 1e4])
def test_laplace_masses_of_whole_numbers_add_up_to_one(scale: float) -> None:
    k = torch.arange(-200_000.0, 200_001.0)
    bits, _, _ = laplace_bits(k, torch.full_like(k, scale))
    assert float(torch.exp2(-bits.double()).sum()) == pytest.approx(1, abs=2e-3)


def quantizer_of(*tensors: Tensor, start_bits: float = 4.0) -> tuple[Quantizer, dict[str, Tensor]]:
    named = {f"w{place}": tensor for place, tensor in enumerate(tensors)}
    torch.manual_seed(0)
    return Quantizer(named, start_bits, CodingSettings(prior="laplace")), named


def steps_of(quantizer: Quantizer) -> dict[str, float]:
    """The learned steps, where each tensor has one."""
    names = [lattice.name for lattice in quantizer.lattices]
    return dict(zip(names, quantizer.log_step.detach().exp().tolist(), strict=True))


def test_quantizer_rounds_weights_to_whole_steps() -> None:
    quantizer, named = quantizer_of(torch.randn(7, 5), 0.01 * torch.randn(3, 4, 2, 2))
    rounded, _ = quantizer(named)
    for name, step in steps_of(quantizer).items():
        whole = rounded[name].detach() / step
        assert rounded[name].shape == named[name].shape
        assert torch.allclose(whole, whole.round(), atol=1e-4)
        assert float((rounded[name].detach() - named[name]).abs().max()) <= step / 2 * 1.0001


def test_quantizer_gradients_pass_straight_through_and_reach_the_steps() -> None:
    weight = torch.randn(6, 4, requires_grad=True)
    quantizer, named = quantizer_of(weight)
    toward = torch.randn(6, 4)
    rounded, _ = quantizer(named)
    (rounded["w0"] * toward).sum().backward()
    step = steps_of(quantizer)["w0"]
    x = weight.detach() / step
    residue = x.round() - x
    assert torch.equal(weight.grad, toward)  # type: ignore[arg-type]
    assert float(quantizer.log_step.grad[0]) == pytest.approx(float((residue * toward).sum() * step), rel=1e-4)  # type: ignore[index]
    assert float(quantizer.prior.log_scale.grad.abs().sum()) == 0  # type: ignore[union-attr]


def test_quantizer_bits_have_the_gradients_of_finite_differences() -> None:
    weights = [torch.randn(5, 3, dtype=torch.float64), 3 * torch.randn(2, 4, dtype=torch.float64)]
    quantizer, named = quantizer_of(*weights)
    quantizer.double()
    for weight in weights:
        weight.requires_grad_()

    def rate() -> Tensor:
        torch.manual_seed(5)
        bits: Tensor = quantizer(named)[1]
        return bits

    parameters = [quantizer.log_step, quantizer.prior.log_scale, *weights]
    slopes = torch.autograd.grad(rate(), parameters)
    for parameter, slope in zip(parameters, slopes, strict=True):
        for index in range(parameter.numel()):
            assert _difference(rate, parameter, index) == pytest.approx(
                float(slope.flatten()[index]), rel=1e-4, abs=1e-5
            )


@torch.no_grad()
def _difference(rate: object, parameter: Tensor, index: int, width: float = 1e-6) -> float:
    flat = parameter.view(-1)
    flat[index] += width
    above = float(rate())  # type: ignore[operator]
    flat[index] -= 2 * width
    below = float(rate())  # type: ignore[operator]
    flat[index] += width
    return (above - below) / (2 * width)


@pytest.mark.parametrize("start_bits", [2.0, 4.0, 8.0])
def test_quantizer_starts_at_the_bits_asked_for(start_bits: float) -> None:
    weight = torch.distributions.Laplace(0.0, 0.03).sample((200, 100))
    quantizer, named = quantizer_of(weight, start_bits=start_bits)
    _, bits = quantizer(named)
    assert float(bits.detach()) / weight.numel() == pytest.approx(start_bits, abs=0.1)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_quantizer_rounds_no_tensor_to_zero_at_the_start(size: float) -> None:
    quantizer, named = quantizer_of(size * torch.randn(20, 20))
    assert float((quantizer(named)[0]["w0"] != 0).float().mean()) > 0.7


def test_quantizer_leaves_a_tensor_of_zeros_zero() -> None:
    quantizer, named = quantizer_of(torch.zeros(3, 3))
    rounded, bits = quantizer(named)
    assert torch.equal(rounded["w0"], torch.zeros(3, 3))
    assert bits.isfinite()


def test_quantizer_refuses_weights_that_are_not_finite_by_name() -> None:
    with pytest.raises(TrialError, match="w0 holds NaN"):
        quantizer_of(torch.tensor([[float("nan")]]))


def test_quantizer_steps_and_scales_learn_the_cost_of_a_distribution() -> None:
    """With weights fixed and a price on squared error, the step moves to the optimum D'(Δ) = −λR'(Δ)."""
    torch.manual_seed(1)
    weight = torch.distributions.Laplace(0.0, 1.0).sample((100, 100))
    quantizer, named = quantizer_of(weight, start_bits=2)
    price = 1e-3
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05, betas=(0.9, 0.95))
    for _ in range(300):
        rounded, bits = quantizer(named)
        loss = (rounded["w0"] - weight).square().mean() + price * bits / weight.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # High-rate theory: D = Δ²/12, R = −log2 Δ + constant, so that Δ² = 6·price/ln 2.
    assert steps_of(quantizer)["w0"] == pytest.approx(math.sqrt(6 * price / math.log(2)), rel=0.02)


def test_quantizer_noise_is_uniform_and_new_in_each_call() -> None:
    quantizer, _ = quantizer_of(torch.randn(100, 100))
    first, second = quantizer._noise(), quantizer._noise()
    assert not torch.equal(first, second)
    for noise in (first, second):
        assert float(noise.min()) >= -0.5
        assert float(noise.max()) <= 0.5
        assert float(noise.mean()) == pytest.approx(0, abs=0.02)
        assert float(noise.var()) == pytest.approx(1 / 12, rel=0.05)


def test_latents_are_what_is_stored_but_for_the_vectors_of_batch_norms() -> None:
    dense = nn.Conv2d(4, 6, 3)
    factorized = load_plugin("svd")(Layer.of(dense), rank=2)
    factorized.fit(dense.weight.detach(), DirectBases(dense.weight))
    model = nn.Sequential(dense, nn.BatchNorm2d(6), factorized)
    assert set(latents(model)) == {"0.weight", "0.bias", "2.left", "2.right", "2.bias"}
    factorized.stored = lambda: [factorized.left]  # type: ignore[method-assign]
    assert set(latents(model)) == {"0.weight", "0.bias", "2.left", "2.bias"}  # a bias is the layer's own


def test_a_shared_weight_is_one_latent_and_counts_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert list(latents(model)) == ["0.weight", "0.bias", "1.bias"]
    assert weight_count(model) == 9
    assert weight_count(copy.deepcopy(model)) == 9


@given(st.integers(0, 2**31))
def test_rounding_keeps_the_whole_numbers_of_training(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    quantizer, named = quantizer_of(torch.randn(9, 8, generator=generator), torch.randn(6, generator=generator))
    with torch.no_grad():
        quantizer.log_step += torch.randn(2, generator=generator)
        whole = {name: torch.round(named[name].double() / step) for name, step in steps_of(quantizer).items()}
    grids = quantizer.round_(named)
    for name, grid in grids.items():
        assert torch.equal(grid.round(named[name]), whole[name])


def test_settled_steps_are_those_that_are_stored_and_stay() -> None:
    quantizer, named = quantizer_of(torch.randn(40, 30), torch.randn(8))
    quantizer.settle_steps_()
    before = steps_of(quantizer)
    quantizer.settle_steps_()
    assert steps_of(quantizer) == before
    for tensor in named.values():
        tensor.requires_grad_()
    rounded, bits = quantizer(named)
    (bits + sum(each.sum() for each in rounded.values())).backward()
    assert quantizer.log_step.grad is None
    quantizer.round_({name: tensor.data for name, tensor in named.items()})
    for name, tensor in named.items():
        assert torch.allclose(tensor, rounded[name], rtol=1e-6)


def test_the_last_quarter_of_a_training_has_settled_steps() -> None:
    assert [steps_are_final(step, 8) for step in range(8)] == [False] * 6 + [True] * 2
