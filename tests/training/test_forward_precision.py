"""Trainings whose forwards are computed in bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rank_search.point import Point, State
from rank_search.quantization import CodingSettings, Quantizer, latents
from rank_search.tasks import Supervised, seeded, task_measurements
from rank_search.training import EntropyPenalty, FineTuning, TrainingSettings, fine_tune
from rank_search.training.forward_precision import forwards_in
from rank_search.training.loss import TrainingLoss
from rank_search.trials import TrialContext, run_trial

MakeWorkbench = Callable[..., TrialContext]
MakePoint = Callable[..., Point]


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Named:
    logits: Tensor


pytree.register_dataclass(Named, serialized_type_name="tests.Named")


class Containers(nn.Module):
    """Gives tensors in everything that outputs may stand in, and notes the types in which it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Any:
        found = self.linear(x)
        self.seen.append(found.dtype)
        return {"pair": (found, [found]), "named": Named(found), "ids": torch.arange(3), "nothing": None}


class CallsItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        x = self.linear(self(x, depth - 1) if depth else x)
        self.seen.append(x.dtype)
        return x


class Raises(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.linear, self.error = nn.Linear(4, 4), error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


def test_outputs_are_float32_wherever_they_stand() -> None:
    model = Containers()
    with forwards_in("bfloat16", model):
        found = model(_numbers(2, 4))
    assert model.seen == [torch.bfloat16]
    tensors = [found["pair"][0], found["pair"][1][0], found["named"].logits]
    assert [each.dtype for each in tensors] == [torch.float32] * 3
    assert found["ids"].dtype == torch.int64
    exact = F.linear(_numbers(2, 4), model.linear.weight, model.linear.bias)
    assert torch.allclose(tensors[0], exact, atol=0.05)
    assert not torch.equal(tensors[0], exact)


def test_float32_changes_nothing() -> None:
    model = Containers()
    with forwards_in("float32", model):
        assert not model._forward_hooks
        assert not model._forward_pre_hooks
        found = model(_numbers(2, 4))
    assert torch.equal(found["pair"][0], model(_numbers(2, 4))["pair"][0])


def test_a_model_that_calls_itself_is_left_as_often_as_entered() -> None:
    model = CallsItself()
    with forwards_in("bfloat16", model):
        assert model(_numbers(2, 4)).dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
    assert model.seen == [torch.bfloat16] * 3


@pytest.mark.parametrize("error", [ValueError("here"), KeyboardInterrupt()])
def test_an_error_in_the_forward_leaves_nothing_behind(error: BaseException) -> None:
    model = Raises(error)
    with pytest.raises(type(error)), forwards_in("bfloat16", model):
        model(_numbers(2, 4))
    assert not torch.is_autocast_enabled("cpu")
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_all_models_are_computed_so_and_nothing_beside_them() -> None:
    model, teacher, other = Containers(), Containers(), nn.Linear(4, 4)
    with forwards_in("bfloat16", model, teacher):
        model(_numbers(2, 4))
        teacher(_numbers(2, 4))
        assert torch.equal(other(_numbers(2, 4)), F.linear(_numbers(2, 4), other.weight, other.bias))
    assert model.seen == teacher.seen == [torch.bfloat16]
    with forwards_in("float32", model):
        model(_numbers(2, 4))
    assert model.seen[-1] == torch.float32


@pytest.mark.parametrize(
    ("own", "computed"), [(torch.float64, torch.float64), (torch.float16, torch.bfloat16)], ids=["float64", "float16"]
)
def test_models_of_other_types_are_trained(own: torch.dtype, computed: torch.dtype) -> None:
    """Autocast leaves float64 alone, which somebody has asked for."""
    model = Containers().to(own)
    with forwards_in("bfloat16", model):
        found = model(_numbers(2, 4).to(own))["pair"][0]
        found.square().mean().backward()
    assert model.seen == [computed]
    assert found.dtype == (own if computed == own else torch.float32)
    assert model.linear.weight.grad is not None
    assert model.linear.weight.grad.dtype == own


def _loss(precision: str, **effort: Any) -> TrainingLoss:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(_numbers(5, 6), torch.arange(5) % 3)]
    settings = TrainingSettings(epochs=1, precision=precision, **effort.pop("training", {}))
    return TrainingLoss(Supervised(model, batches, batches), model, FineTuning(settings, **effort))


def test_the_loss_and_its_gradients_are_float32() -> None:
    loss = _loss("bfloat16")
    found = loss.of(loss.task.training()[0], 0, 1)
    found.backward()
    exact = _loss("float32")
    expected = exact.of(exact.task.training()[0], 0, 1)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    assert found.item() != expected.item()
    assert {each.grad.dtype for each in loss.model.parameters() if each.grad is not None} == {torch.float32}


def test_the_teacher_is_computed_so_too() -> None:
    teacher = Containers().eval()
    model = copy.deepcopy(teacher)
    seen: list[torch.dtype] = []
    batches = [(_numbers(5, 4), torch.arange(5) % 3)]
    for each in (teacher, model):
        each.linear.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs.dtype))
    task = Supervised(_Logits(model), batches, batches)
    settings = TrainingSettings(epochs=1, precision="bfloat16", distillation=0.5)
    TrainingLoss(task, task.network, FineTuning(settings, teacher=_Logits(teacher))).of(batches[0], 0, 1)
    assert seen == [torch.bfloat16] * 2


class _Logits(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x)["pair"][0]
        return found


def test_bits_and_what_is_rounded_are_those_of_float32() -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        loss = _loss(precision)
        quantizer = Quantizer(latents(loss.model), 8, CodingSettings())
        loss = TrainingLoss(loss.task, loss.model, replace(loss.effort, entropy=EntropyPenalty(quantizer, 1.0)))
        with seeded(1):
            found.append(loss._rounded(0, 10))
    (values, bits), (others, other_bits) = found
    assert bits is not None
    assert torch.equal(bits, other_bits)
    assert all(torch.equal(values[name], others[name]) for name in values)


def test_the_same_seed_gives_the_same_weights_and_they_learn(task: Supervised) -> None:
    states, settings = [], TrainingSettings(epochs=2, learning_rate=5e-3, precision="bfloat16")
    for _ in range(2):
        model = copy.deepcopy(task.network)
        with torch.no_grad():
            model[-1].weight.zero_()
        before = task_measurements(task, model.eval(), task.selection(), "selection data")["error"]
        with seeded(3):
            assert fine_tune(task, model, FineTuning(settings)) is None
        states.append(model.state_dict())
    assert {each.dtype for each in states[0].values()} == {torch.float32, torch.int64}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    after = task_measurements(task, model, task.selection(), "selection data")["error"]
    assert after < before / 2


def test_a_trial_is_measured_in_the_models_own_type(workbench: MakeWorkbench, point: MakePoint) -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    def note(module: nn.Module, inputs: Any, outputs: Any) -> None:
        if isinstance(module, nn.Conv2d):
            seen.append((module.training, outputs.dtype))

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        outcome = run_trial(workbench(epochs=1, precision="bfloat16"), point(), 0)
    finally:
        handle.remove()
    assert outcome.state is State.COMPLETE, outcome.reason
    assert (True, torch.bfloat16) in seen
    assert {dtype for training, dtype in seen if not training} == {torch.float32}
