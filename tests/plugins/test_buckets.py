"""Buckets: the laws, the hash, that they only store less, and how close they come to weights and outputs."""

from __future__ import annotations

import pytest
import torch
from rank_search_plugins import buckets
from rank_search_plugins.buckets import Buckets, conjugate_gradients, hashed
from torch import Tensor

from rank_search.layers import Cost, DirectBases, Layer, count_params, output_error
from rank_search.layers.costs import count_macs
from rank_search.options import CostModel
from rank_search.point import Choice
from rank_search.testing import FactorizationLaws

LAYER = Layer("x", "conv2d", (5, 4, 3, 3), dtype=torch.float64, inputs=((2, 4, 6, 5),))


class TestLaws(FactorizationLaws):
    factorization = Buckets


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int) -> Tensor:
    inputs = (normal(400, size, seed=1) @ (normal(size, size, seed=2) / size**0.5) + normal(400, 1, seed=3)).relu()
    return inputs.T @ inputs / len(inputs)


def fitted(count: int, weight: Tensor, moment: Tensor | None = None, groups: int = 1) -> Buckets:
    layer = Layer("x", "conv2d", tuple(weight.shape), dtype=weight.dtype, groups=groups)
    form = Buckets(layer, buckets=count)
    form.fit(weight, DirectBases(weight, moment, groups=groups))
    return form


def mixed(place: int) -> int:
    """Mueller's hash, a place after the other."""
    for _ in range(2):
        place = ((place >> 16) ^ place) * 0x45D9F3B % 2**32
    return (place >> 16) ^ place


def table(count: int, size: int) -> Tensor:
    """Which number each entry has, and its sign: size × buckets."""
    signs = torch.zeros(size, count, dtype=torch.float64)
    for place in range(size):
        slot = mixed(place + 1) * 2 * count // 2**32
        signs[place, slot % count] = 1.0 if slot < count else -1.0
    return signs


def test_the_hash_is_muellers_in_whole_numbers_of_any_length() -> None:
    found = hashed(300_001, 1000)
    for place in (0, 1, 2, 77, 123_456, 300_000):
        assert int(found[place]) == mixed(place + 1) * 1000 // 2**32
    assert int(hashed(3, 2**31 - 1)[2]) == mixed(3) * (2**31 - 1) // 2**32


def test_buckets_are_about_equally_full_and_signs_about_balanced() -> None:
    slots = hashed(64_000, 2 * 128)
    counts = torch.bincount(slots % 128, minlength=128).double()
    assert counts.mean() == 500
    assert (counts - 500).square().mean() < 2 * 500  # what independent choices have, twice
    assert float((slots < 128).double().mean()) == pytest.approx(0.5, abs=0.01)
    neighbours = (slots[1:] % 128 == slots[:-1] % 128).double().mean()
    assert float(neighbours) == pytest.approx(1 / 128, rel=0.2)


def test_the_weight_is_the_table_of_signs_times_the_numbers() -> None:
    form, numbers = Buckets(LAYER, buckets=20), normal(20)
    form.load_state_dict({"bias": normal(5), "shared": numbers[None]})
    torch.testing.assert_close(form.dense().detach(), (table(20, 180) @ numbers).view(LAYER.shape))


def test_a_fit_to_the_weight_is_least_squares() -> None:
    weight = normal(*LAYER.shape)
    S = table(20, weight.numel())
    best = S @ torch.linalg.lstsq(S, weight.flatten()[:, None], driver="gelsd").solution
    torch.testing.assert_close(fitted(20, weight).dense().detach(), best.view(weight.shape))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_fit_to_the_outputs_is_least_squares_in_their_metric(groups: int) -> None:
    weight = normal(6, 4, 3, 3)
    C = moment(36) if groups == 1 else torch.stack([moment(36), 3 * moment(36).flip(0, 1)])
    blocks = [C] * 6 if groups == 1 else [C[row // 3] for row in range(6)]
    R = torch.block_diag(*(torch.linalg.cholesky(block).T for block in blocks))
    S = table(12, weight.numel())
    best = (S @ torch.linalg.lstsq(R @ S, (R @ weight.flatten())[:, None]).solution).view(weight.shape)
    found, plain = fitted(12, weight, C, groups).dense(), fitted(12, weight).dense()
    errors = [output_error(weight, each, C) for each in (best, found, plain)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)
    assert errors[0] < 0.95 * errors[2]


@pytest.mark.parametrize("seed", range(8))
def test_what_a_single_input_leaves_open_stays_near_the_weight(seed: int) -> None:
    weight, x = normal(8, 12, seed=seed), normal(12, 1, seed=100 + seed)
    for count in (5, 16, 40, 60, 80):
        form = Buckets(Layer("x", "linear", (8, 12), dtype=torch.float64), buckets=count)
        form.fit(weight, DirectBases(weight, x @ x.T))
        assert float(form.dense().detach().abs().max()) < 30
        zero = torch.zeros_like(weight)
        assert output_error(weight, form.dense(), x @ x.T) < output_error(weight, zero, x @ x.T)


@pytest.mark.parametrize("value", [0.1, 1.7, -3.3])
@pytest.mark.parametrize("size", [(16, 16), (6, 40)])
def test_weights_that_are_all_alike_do_not_go_far(size: tuple[int, int], value: float) -> None:
    """Where rounding is all that is left to be solved for."""
    weight = torch.full(size, value, dtype=torch.float64)
    for count in range(1, weight.numel(), 7):
        form = Buckets(Layer("x", "linear", size, dtype=torch.float64), buckets=count)
        form.fit(weight, DirectBases(weight, torch.ones(size[1], size[1], dtype=torch.float64)))
        assert float((form.dense().detach() - weight).norm() / weight.norm()) < 200


def test_no_step_is_taken_once_only_rounding_is_left() -> None:
    steps, diagonal = [], torch.arange(1.0, 4.0, dtype=torch.float64)

    def apply(x: Tensor) -> Tensor:
        steps.append(x)
        return diagonal * x + x.sum()

    found = conjugate_gradients(apply, normal(3), torch.ones(3, dtype=torch.float64))
    assert len(steps) <= 5
    torch.testing.assert_close(diagonal * found + found.sum(), normal(3))


def test_many_buckets_are_nearer_to_the_outputs_than_the_plain_fit_and_empty_ones_do_no_harm() -> None:
    weight, C = normal(6, 4, 3, 3), moment(36)
    form = fitted(150, weight, C)
    assert set(range(150)) - set((hashed(216, 300) % 150).tolist())
    assert form.shared.isfinite().all()
    assert output_error(weight, form.dense(), C) < 0.9 * output_error(weight, fitted(150, weight).dense(), C)


def test_many_inputs_are_fitted_to_the_weight_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(*LAYER.shape)
    assert not torch.equal(fitted(9, weight, moment(36)).dense(), fitted(9, weight).dense())
    monkeypatch.setattr(buckets, "SOLVED", 35)
    assert torch.equal(fitted(9, weight, moment(36)).dense(), fitted(9, weight).dense())


def test_it_stores_less_and_costs_the_layers_own_macs() -> None:
    form, x = Buckets(LAYER, buckets=9), torch.zeros(LAYER.inputs[0], dtype=torch.float64)
    assert count_params(form) == 9 + 5
    assert {name: tensor.numel() for name, tensor in form.state_dict().items()} == {"bias": 5, "shared": 9}
    assert count_macs(form, [x]) == 2 * 12 * 5 * 36
    assert Buckets.axes(Layer("x", "embedding", (8, 100))) == ()
    assert [axis.high for axis in Buckets.axes(LAYER)] == [180]


@pytest.mark.parametrize(("asked", "saves"), [("params", True), ("bits", True), ("macs", False)])
def test_it_saves_where_parameters_or_bits_are_asked_for(asked: str, saves: bool) -> None:
    costs = CostModel({"x": LAYER}, {"buckets": Buckets}, Cost(0, 0), asked=[asked])
    assert costs.saves("x", Choice("buckets", {"buckets": 9})) is saves
