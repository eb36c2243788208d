"""Symmetric kernels: the laws, that the groups leave them as they are, the cheapest order, and how close they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from rank_search_plugins.fixed_group import gap
from rank_search_plugins.symmetric import (
    Flipped,
    HalfTurned,
    Mirrored,
    QuarterTurned,
    Symmetric,
    UpsideDown,
    macs_of_orders,
)
from torch import Tensor, nn

from rank_search.layers import DirectBases, Layer, count_params, output_error
from rank_search.layers.costs import count_macs
from rank_search.testing import FactorizationLaws, check_factorization

Action = Callable[[Tensor], Tensor]

GROUPS: dict[type[Symmetric], list[Action]] = {
    Mirrored: [lambda x: x, lambda x: x.flip(-1)],
    UpsideDown: [lambda x: x, lambda x: x.flip(-2)],
    HalfTurned: [lambda x: x, lambda x: x.flip(-1, -2)],
    Flipped: [lambda x: x, lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.flip(-1, -2)],
    QuarterTurned: [lambda x, turns=turns: torch.rot90(x, turns, (-2, -1)) for turns in range(4)],  # type: ignore[misc]
}

IMAGE = Layer("x", "conv2d", (8, 6, 3, 3), dtype=torch.float64)


class TestLaws(FactorizationLaws):
    factorization = QuarterTurned


@pytest.mark.parametrize("factorization", [Mirrored, UpsideDown, HalfTurned, Flipped])
def test_the_laws_hold_for_the_other_groups_on_some_layers(factorization: type[Symmetric]) -> None:
    assert [each for each in check_factorization(factorization) if not each.ok] == []


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, seed: int = 1) -> Tensor:
    inputs = (normal(400, size, seed=seed) @ normal(size, size, seed=2)).relu() * (normal(size, seed=3) / 2).exp()
    return inputs.T @ inputs / len(inputs)


def fitted(factorization: type[Symmetric], layer: Layer, weight: Tensor, moment: Tensor | None = None) -> Symmetric:
    form = factorization(layer, order=factorization.order)
    form.fit(weight, DirectBases(weight, moment, groups=layer.groups))
    return form


def mean_of_group(factorization: type[Symmetric], weight: Tensor) -> Tensor:
    """The Reynolds operator, as it is written."""
    return torch.stack([action(weight) for action in GROUPS[factorization]]).mean(0)


@pytest.mark.parametrize("factorization", GROUPS)
@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (4, 2, 4, 4), (3, 2, 2, 5, 5)])
def test_a_fit_to_the_weight_is_the_mean_over_the_group(factorization: type[Symmetric], shape: tuple[int, ...]) -> None:
    weight = normal(*shape)
    layer = Layer("x", f"conv{len(shape) - 2}d", shape, dtype=torch.float64)
    expected = mean_of_group(factorization, weight)
    torch.testing.assert_close(fitted(factorization, layer, weight).dense().detach(), expected)
    (distance,) = factorization.figures(layer, weight).items()
    assert distance == ("equivariance_gap", pytest.approx(float((weight - expected).norm() / weight.norm())))
    assert factorization.figures(layer, expected)["equivariance_gap"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("factorization", GROUPS)
def test_its_maps_move_with_the_inputs_whatever_its_numbers(factorization: type[Symmetric]) -> None:
    layer = replace(Layer.of(nn.Conv2d(4, 5, 3, padding=1, dtype=torch.float64)), inputs=((1, 4, 7, 7),))
    form, x = factorization(layer, order=factorization.order), normal(1, 4, 7, 7)
    form.load_state_dict({"bias": normal(5, seed=2), "entries": normal(*form.entries.shape, seed=1)})
    for action in GROUPS[factorization]:
        torch.testing.assert_close(form(action(x)), action(form(x)))


@pytest.mark.parametrize(
    ("factorization", "kernel", "orbits"),
    [
        (Mirrored, (3, 3), 6),
        (Mirrored, (5,), 3),
        (Mirrored, (3, 1), None),
        (UpsideDown, (3, 1), 2),
        (UpsideDown, (5,), None),
        (HalfTurned, (3, 3), 5),
        (HalfTurned, (7,), None),
        (Flipped, (3, 3), 4),
        (Flipped, (4, 6), 6),
        (QuarterTurned, (3, 3), 3),
        (QuarterTurned, (5, 5), 7),
        (QuarterTurned, (3, 4, 4), 12),
        (QuarterTurned, (3, 5), None),
        (QuarterTurned, (1, 1), None),
    ],
)
def test_it_keeps_a_number_for_each_orbit_and_applies_where_there_are_fewer_than_places(
    factorization: type[Symmetric], kernel: tuple[int, ...], orbits: int | None
) -> None:
    layer = Layer("x", f"conv{len(kernel)}d", (5, 4, *kernel))
    axes = factorization.axes(layer)
    assert bool(axes) is (orbits is not None)
    if orbits is not None:
        assert (axes[0].low, axes[0].high) == (factorization.order, factorization.order)
        assert count_params(factorization(layer, order=factorization.order)) == 5 * 4 * orbits + 5


def test_it_does_not_apply_to_matrices() -> None:
    assert Mirrored.axes(Layer("x", "linear", (5, 4))) == ()
    assert Mirrored.axes(Layer("x", "embedding", (5, 4))) == ()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("factorization", [Mirrored, QuarterTurned])
def test_a_fit_to_the_outputs_is_least_squares_over_its_numbers(factorization: type[Symmetric], groups: int) -> None:
    weight = normal(8, 6, 3, 3)
    moments = [moment(54, seed) for seed in range(1, 1 + groups)]
    C = moments[0] if groups == 1 else torch.stack(moments)
    form = fitted(factorization, replace(IMAGE, groups=groups), weight, C)
    R = torch.block_diag(*(torch.linalg.cholesky(moments[row * groups // 8]).T for row in range(8)))
    numbers = torch.eye(form.entries.numel(), dtype=torch.float64).view(-1, *form.entries.shape)
    weights = [torch.func.functional_call(_Dense(form), {"form.entries": each}, ()) for each in numbers]
    U = torch.stack([each.flatten() for each in weights], 1)
    best = (U @ torch.linalg.lstsq(R @ U, (R @ weight.flatten())[:, None]).solution).view_as(weight)
    errors = [output_error(weight, each, C) for each in (best, form.dense(), mean_of_group(factorization, weight))]
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)
    assert errors[0] < 0.95 * errors[2]


class _Dense(nn.Module):
    def __init__(self, form: Symmetric) -> None:
        super().__init__()
        self.form = form

    def forward(self) -> Tensor:
        return self.form.dense()


@pytest.mark.parametrize("known", ["nothing", "inputs"])
def test_a_symmetric_weight_is_met(known: str) -> None:
    weight = mean_of_group(Flipped, normal(8, 6, 3, 3))
    form = fitted(Flipped, IMAGE, weight, None if known == "nothing" else moment(54))
    torch.testing.assert_close(form.dense().detach(), weight)


def of(module: nn.Module, *inputs: int) -> Layer:
    return replace(Layer.of(module), inputs=(inputs,))


CONVOLUTIONS = {
    "narrowing": of(nn.Conv2d(48, 24, 3, padding=1), 1, 48, 16, 16),
    "widening": of(nn.Conv2d(24, 48, 3, padding=1), 1, 24, 16, 16),
    "strided": of(nn.Conv2d(16, 32, 3, 2, padding=1), 1, 16, 16, 16),
    "depthwise": of(nn.Conv2d(12, 12, 3, padding=1, groups=12), 1, 12, 16, 16),
    "in two groups": of(nn.Conv2d(64, 96, 3, padding=1, groups=2), 1, 64, 16, 16),
    "one dimension": of(nn.Conv1d(12, 24, 5, padding=2), 1, 12, 64),
    "transposed": of(nn.ConvTranspose2d(32, 48, 4, 2, padding=1), 1, 32, 8, 8),
    "few": of(nn.Conv2d(2, 1, 3, padding=1), 1, 2, 16, 16),
}
WHOLE = {"depthwise", "few"}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_order_of_fewest_macs_is_taken_and_counted_as_it_is_run(name: str) -> None:
    layer = CONVOLUTIONS[name]
    form, x = Mirrored(layer, order=2), torch.zeros(layer.inputs[0])
    orders = macs_of_orders(layer, form.entries.shape[2])
    counted, whole = count_macs(form, [x]), _of_layer(layer)
    assert counted == whole if name in WHOLE else counted < whole
    assert counted / whole == pytest.approx(min(orders) / orders[0], rel=0.05)


def _of_layer(layer: Layer) -> int:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return layer.operate(x, torch.zeros(layer.shape))

    return count_macs(Whole(), [torch.zeros(layer.inputs[0])])


def test_the_gap_of_numbers_without_symmetry_is_that_of_chance() -> None:
    gaps = [QuarterTurned.figures(IMAGE, normal(8, 6, 3, 3, seed=seed))["equivariance_gap"] for seed in range(20)]
    assert sum(gaps) / 20 == pytest.approx((1 - 3 / 9) ** 0.5, rel=0.02)
    assert gap(torch.zeros(3), torch.zeros(3)) == 0
