"""Components lose norm from step to step, and training itself lowers ranks."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.layers import DirectBases, Factorization, Layer, factorize, load_plugin, take_inventory
from rank_search.point import Choice, Point
from rank_search.tasks import Supervised, seeded
from rank_search.training import FineTuning, SparsityPenalty, Trainer, TrainingSettings, balance_components, fine_tune
from rank_search.training.shrinking import Shrinking, joint_norms, kept_shares
from tests.emptied import Ring, drawn

LINEAR = Layer("", "linear", (4, 6))
GROUPED = Layer("", "conv2d", (8, 3, 3, 3), groups=2, inputs=((6, 5, 5),))


def components_of(form: Factorization, modes: Mapping[str, int], number: int, count: int) -> list[Tensor]:
    """The slices of one component, one by one, blocks of groups included."""
    return [
        form.get_parameter(name).select(mode, place)
        for name, mode in modes.items()
        for place in range(form.get_parameter(name).shape[mode])
        if place % count == number
    ]


@pytest.mark.parametrize(
    ("form", "modes"),
    [
        (drawn("svd", LINEAR, rank=3), {"left": 1, "right": 0}),
        (drawn("svd", GROUPED, rank=3), {"left": 1, "right": 0}),
        (drawn("cp", Layer("", "conv2d", (8, 6, 3, 3)), rank=3), {"outer": 1, "inner": 1, "space": 1}),
        (drawn("filter-basis", Layer("", "conv2d", (8, 6, 3, 3)), rank=3), {"filters": 0, "mixing": 2}),
    ],
)
def test_a_step_is_the_group_soft_threshold(form: Factorization, modes: Mapping[str, int]) -> None:
    rate, strength, count = 0.5, 2.0, 3
    norms = [
        torch.cat([each.detach().flatten() for each in components_of(form, modes, number, count)]).norm()
        for number in range(count)
    ]
    threshold = float(sorted(norms)[0] + sorted(norms)[1]) / 2  # one component is below
    wanted = copy.deepcopy(form)
    with torch.no_grad():
        for number in range(count):
            for each in components_of(wanted, modes, number, count):
                each.mul_(max(0.0, 1 - threshold / float(norms[number])))
    shrinking = Shrinking(form, SparsityPenalty(strength * threshold, ("params",)), framed=False)
    shrinking.shrink_(rate)  # the only axis is the average one
    for name, parameter in form.named_parameters():
        assert torch.allclose(parameter, wanted.get_parameter(name), rtol=1e-5, atol=1e-7), name
    assert [bool(each) for each in shrinking.alive()[0]] == [norm > threshold for norm in norms]


def test_crossing_slices_take_their_steps_one_after_the_other() -> None:
    form = drawn("tucker2", Layer("", "conv2d", (8, 6, 3, 3), inputs=((6, 5, 5),)), rank_out=3, rank_in=2)
    outer, core, inner = (form.get_parameter(name).detach().clone() for name in ("outer", "core", "inner"))
    # parameters of one component: 8 + 2·9 on the way out, 6 + 3·9 on the way in; average of 3 and 2 components
    out, into = 8 + 2 * 9, 6 + 3 * 9
    average = (3 * out + 2 * into) / 5
    for number in range(3):
        norm = (outer[:, number].square().sum() + core[number].square().sum()).sqrt()
        share = 1 - 0.1 * out / average / norm
        outer[:, number] *= share
        core[number] *= share
    for number in range(2):
        norm = (inner[:, number].square().sum() + core[:, number].square().sum()).sqrt()
        share = 1 - 0.1 * into / average / norm
        inner[:, number] *= share
        core[:, number] *= share
    Shrinking(form, SparsityPenalty(1.0, ("params",)), framed=False).shrink_(0.1)
    for name, wanted in {"outer": outer, "core": core, "inner": inner}.items():
        assert torch.allclose(form.get_parameter(name), wanted, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0, 7.0])
def test_the_soft_threshold_is_the_proximal_point(threshold: float) -> None:
    """Of ½‖x − y‖² + t‖x‖, whose least x is a multiple of y: found among many multiples."""
    norm, multiples = 2.5, torch.linspace(0, 2, 20001, dtype=torch.float64)
    value = (1 - multiples).square() * norm**2 / 2 + threshold * multiples * norm
    found = kept_shares(torch.tensor([norm], dtype=torch.float64), threshold)
    assert float(found) == pytest.approx(float(multiples[value.argmin()]), abs=1e-4)


def two_layers() -> nn.Sequential:
    """A convolution that runs on 25 places and a matrix, each in two factors of rank 2."""
    one = drawn("svd", Layer("0", "conv2d", (8, 6, 3, 3), inputs=((1, 6, 7, 7),)), rank=2)
    return nn.Sequential(one, drawn("svd", Layer("1", "linear", (4, 6), inputs=((1, 6),)), rank=2))


@pytest.mark.parametrize(
    ("costs", "weights"),
    [
        (("params",), (62, 10)),  # 6·9 + 8 and 6 + 4
        (("macs",), (25 * 62, 10)),
        (("params", "macs"), (62 / 36 + 1550 / 780, 10 / 36 + 10 / 780)),  # each over its mean
    ],
)
def test_components_lose_norm_in_proportion_to_what_they_cost(
    costs: tuple[str, ...], weights: tuple[float, float]
) -> None:
    model = two_layers()
    before = [joint(form) for form in model]
    Shrinking(model, SparsityPenalty(0.3, costs), framed=False).shrink_(0.1)
    lost = [old - joint(form) for old, form in zip(before, model, strict=True)]
    for each, weight in zip(lost, weights, strict=True):
        expected = 0.03 * weight / (sum(weights) / 2)
        assert torch.allclose(each, torch.full((2,), expected), rtol=1e-3)


def joint(form: nn.Module) -> Tensor:
    left, right = form.get_parameter("left").detach(), form.get_parameter("right").detach()
    return joint_norms([(left, 1), (right, 0)], 2)


def test_frames_that_are_kept_orthonormal_and_frozen_factors_are_left_alone() -> None:
    framed, frozen = drawn("svd", LINEAR, rank=3), drawn("svd", LINEAR, rank=3)
    frozen.get_parameter("left").requires_grad_(False)
    for form, flag in ((framed, True), (frozen, False)):
        left, right = (form.get_parameter(name).detach().clone() for name in ("left", "right"))
        Shrinking(form, SparsityPenalty(1.0, ("params",)), framed=flag).shrink_(0.01)
        assert torch.equal(form.get_parameter("left"), left)
        lost = right.norm(dim=1) - form.get_parameter("right").detach().norm(dim=1)
        assert torch.allclose(lost, torch.full((3,), 0.01), rtol=1e-3)


@pytest.mark.parametrize(
    "form",
    [
        drawn("svd", LINEAR, rank=3),
        drawn("svd", GROUPED, rank=3),
        drawn("svd-spatial", Layer("", "conv2d", (8, 6, 3, 3)), rank=3),
        drawn("cp", Layer("", "conv2d", (8, 6, 3, 3)), rank=3),
        drawn("block-svd-4", Layer("", "conv2d", (8, 8, 3, 3)), rank=2),
        drawn("filter-basis", Layer("", "conv2d", (8, 6, 3, 3)), rank=3),
        drawn("tucker2", Layer("", "conv2d", (8, 6, 3, 3)), rank_out=3, rank_in=2),
    ],
)
def test_balanced_factors_stand_for_the_same_weight(form: Factorization) -> None:
    with torch.no_grad():
        next(iter(form.parameters())).mul_(100)
    before, norms = form.dense().detach().clone(), norms_of(form)
    balance_components(form, framed=False)
    assert torch.allclose(form.dense(), before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    assert sum(norms_of(form)) < sum(norms)


def norms_of(form: Factorization) -> list[float]:
    return [float(each.detach().norm()) for each in form.parameters()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_of_16_bits_are_balanced_to_their_rounding(dtype: torch.dtype) -> None:
    form = drawn("svd", Layer("", "linear", (9, 12), dtype=dtype), rank=5)
    with torch.no_grad():
        form.get_parameter("left").mul_(20)
    balance_components(form, framed=False)
    left, right = form.get_parameter("left").float(), form.get_parameter("right").float()
    assert torch.allclose(left.norm(dim=0), right.norm(dim=1), rtol=0.02)


def test_balanced_factors_have_equal_parts_of_each_component() -> None:
    form = drawn("svd", LINEAR, rank=3)
    with torch.no_grad():
        form.get_parameter("right")[1] *= 50
    product = form.get_parameter("left").norm(dim=0) * form.get_parameter("right").norm(dim=1)
    balance_components(form, framed=False)
    for norm in (form.get_parameter("left").norm(dim=0), form.get_parameter("right").norm(dim=1)):
        assert torch.allclose(norm, product.sqrt())


def test_factors_that_are_no_plain_product_and_frames_are_not_balanced() -> None:
    ring, framed = drawn(Ring, LINEAR, rank=2), drawn("svd", LINEAR, rank=3)
    for form, flag in ((ring, False), (framed, True)):
        before = copy.deepcopy(form.state_dict())
        balance_components(form, framed=flag)
        assert all(torch.equal(tensor, before[name]) for name, tensor in form.state_dict().items())


# ---- in a training ---------------------------------------------------------------------------------------


@pytest.fixture
def task() -> Supervised:
    """One batch."""
    with seeded(0):
        batches = [(torch.randn(16, 6), torch.arange(16) % 3)]
        return Supervised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), batches, batches)


def in_factors(task: Supervised) -> nn.Module:
    layers = take_inventory(task.network, task.example()).layers
    bases = {name: DirectBases(task.network.get_parameter(f"{name}.weight")) for name in layers}
    point = Point({name: Choice("svd", {"rank": 3}) for name in layers})
    model = factorize(task.network, point, layers, {"svd": load_plugin("svd")}, bases.__getitem__)
    balance_components(model, framed=False)
    return model


def train(task: Supervised, model: nn.Module, strength: float, **given: Any) -> None:
    settings = TrainingSettings.model_validate({"gradient_clip": math.inf, **given})
    with seeded(0):
        assert fine_tune(task, model, FineTuning(settings, sparsity=SparsityPenalty(strength, ("params",)))) is None


PLAIN = {"optimizer": "sgd", "momentum": 0, "learning_rate": 0.1, "schedule": "constant"}


def stepped(task: Supervised, model: nn.Module, rate: float) -> None:
    """A step down the gradient."""
    ((inputs, targets),) = task.training_batches
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), targets), parameters)
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter -= rate * slope


@torch.no_grad()
def shrunk(model: nn.Module, threshold: float) -> None:
    """The proximal step, for layers of 14 and 11 parameters a component."""
    for name, cost in (("0", 14), ("2", 11)):
        left, right = model.get_parameter(f"{name}.left"), model.get_parameter(f"{name}.right")
        for number in range(3):
            norm = float((left[:, number].square().sum() + right[number].square().sum()).sqrt())
            share = max(0.0, 1 - threshold * cost / 12.5 / norm) if norm else 0.0
            left[:, number] *= share
            right[number] *= share


def dead(model: nn.Module) -> list[int]:
    return [int((model.get_parameter(f"{name}.left") == 0).all(0).sum()) for name in ("0", "2")]


def test_training_takes_a_gradient_step_and_a_proximal_one_and_in_the_end_keeps_what_is_zero(
    task: Supervised,
) -> None:
    found, wanted = in_factors(task), in_factors(task)
    train(task, found, 4.0, epochs=4, **PLAIN)
    for _ in range(3):
        stepped(task, wanted, 0.1)
        shrunk(wanted, 0.4)
    before = dead(wanted)
    stepped(task, wanted, 0.1)  # a component of zeros has no gradient, so this one keeps it
    assert dead(wanted) == before
    assert sum(before) in range(1, 6)
    for name, parameter in found.named_parameters():
        assert torch.allclose(parameter, wanted.get_parameter(name), rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_a_strength_weighs_against_the_loss_as_much_with_momentum(task: Supervised, momentum: float) -> None:
    """Of small steps at a rate, and of those with momentum m at rate · (1 − m), the weights are the same."""
    found = []
    for each in (0.0, momentum):
        model = in_factors(task)
        given = {**PLAIN, "epochs": 400, "momentum": each, "learning_rate": 0.01 * (1 - each)}
        settings = TrainingSettings.model_validate({"gradient_clip": math.inf, **given})
        trainer = Trainer(task, model, FineTuning(settings, sparsity=SparsityPenalty(0.3, ("params",))))
        trainer.advance(300)
        found.append(torch.cat([joint_norms([(left, 1), (right, 0)], 3) for left, right in pairs(model)]))
    one, other = found
    assert torch.allclose(one, other, rtol=0.03, atol=0.01)


def pairs(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return [
        (model.get_parameter(f"{name}.left").detach(), model.get_parameter(f"{name}.right").detach())
        for name in ("0", "2")
    ]


def test_what_is_zero_before_the_last_quarter_stays_zero_whatever_moves_it(task: Supervised) -> None:
    """Momentum would."""
    model, settings = in_factors(task), TrainingSettings.model_validate({"epochs": 8, **PLAIN, "momentum": 0.99})
    trainer = Trainer(task, model, FineTuning(settings, sparsity=SparsityPenalty(2.0, ("params",))))
    trainer.advance(6)
    before = dead(model)
    assert sum(before) > 0
    trainer.advance(8)
    assert dead(model) == before


def test_components_without_weight_have_none_in_the_average_either(task: Supervised) -> None:
    last, averaged = in_factors(task), in_factors(task)
    train(task, last, 2.0, epochs=8, **PLAIN)
    train(task, averaged, 2.0, epochs=8, average=0.9, **PLAIN)
    assert dead(averaged) == dead(last)
    assert sum(dead(last)) > 0
    assert not torch.equal(averaged.get_parameter("0.left"), last.get_parameter("0.left"))
