"""The dense model teaches: what is minimized, and where it leads."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.point import Point, State
from rank_search.quantization import Quantizer, latents
from rank_search.tasks import Supervised, Task, seeded, task_distilled_loss
from rank_search.tasks.supervised import teacher_distance
from rank_search.training import EntropyPenalty, FineTuning, TrainingSettings, check_task, fine_tune
from rank_search.trials import TrialContext, run_trial

MakeWorkbench = Callable[..., TrialContext]
MakePoint = Callable[..., Point]
INPUTS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
BATCH = (INPUTS, torch.arange(12) % 3)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 4), st.integers(1, 5), st.floats(0.3, 20), st.integers(0, 99))
def test_distillation_loss_is_the_divergence_by_its_definition(count: int, classes: int, T: float, seed: int) -> None:
    outputs, aims = normal(count, classes, seed=seed), normal(count, classes, seed=seed + 100)
    total = 0.0
    for ours, theirs in zip(outputs.tolist(), aims.tolist(), strict=True):
        q, p = ([math.exp(z / T) for z in row] for row in (ours, theirs))
        total += sum(b / sum(p) * math.log(b / sum(p) * sum(q) / a) for a, b in zip(q, p, strict=True))
    assert float(teacher_distance(outputs, aims, T)) == pytest.approx(T * T * total / count, rel=1e-9, abs=1e-12)


def test_distillation_gradient_is_that_of_finite_differences_and_of_the_paper() -> None:
    outputs, aims, T = normal(4, 3, seed=1).requires_grad_(), normal(4, 3, seed=2), 4.0
    assert torch.autograd.gradcheck(lambda z: teacher_distance(z, aims, T), outputs)
    (slope,) = torch.autograd.grad(teacher_distance(outputs, aims, T), outputs)
    assert torch.allclose(slope, T * ((outputs / T).softmax(-1) - (aims / T).softmax(-1)) / 4)


def test_distillation_averages_leading_dimensions_and_computes_half_precision_in_single() -> None:
    outputs, aims = normal(2, 3, 4, seed=1), normal(2, 3, 4, seed=2)
    assert torch.equal(
        teacher_distance(outputs, aims, 2), teacher_distance(outputs.flatten(0, 1), aims.flatten(0, 1), 2)
    )
    assert teacher_distance(outputs.bfloat16(), aims.bfloat16(), 2).dtype == torch.float32
    assert float(teacher_distance(outputs, outputs, 2)) == 0


class Watched(nn.Linear):
    """A linear layer that counts its forwards and keeps in which mode they were."""

    def __init__(self, seed: int) -> None:
        with seeded(seed):
            super().__init__(5, 3)
        self.forwards: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.forwards.append((self.training, torch.is_grad_enabled()))
        return super().forward(x)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_distilled_loss_runs_the_model_once(share: float) -> None:
    model, teacher = Watched(0), Watched(1).eval()
    task = Supervised(model, [BATCH], [BATCH], [BATCH])
    found = task_distilled_loss(task, model, teacher, BATCH, share, 3)
    assert (model.forwards, teacher.forwards) == ([(True, True)], [(False, False)])
    far = teacher_distance(model(INPUTS), teacher(INPUTS), 3)
    assert torch.allclose(found, (1 - share) * F.cross_entropy(model(INPUTS), BATCH[1]) + share * far)


def distilled(share: float, **effort: Any) -> tuple[float, float]:
    """How far the outputs are from the teacher's, before and after training on targets that say something else."""
    model, teacher = Watched(0), Watched(1).eval()
    before = copy.deepcopy(teacher.state_dict())
    task = Supervised(model, [BATCH], [BATCH], [BATCH])
    if "price" in effort:
        with seeded(2):
            effort = {"entropy": EntropyPenalty(Quantizer(latents(model), 8), effort["price"])}

    def far() -> float:
        with torch.no_grad():
            return float(teacher_distance(model(INPUTS), teacher(INPUTS), 1))

    first = far()
    settings = TrainingSettings(epochs=200, learning_rate=3e-2, distillation=share)
    assert fine_tune(task, model, FineTuning(settings, teacher=teacher, **effort)) is None
    assert not any(training or graded for training, graded in teacher.forwards)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    return first, far()


@pytest.mark.parametrize("effort", [{}, {"price": 1e-9}])
def test_distillation_pulls_outputs_towards_the_teacher(effort: dict[str, Any]) -> None:
    first, last = distilled(1.0, **effort)
    assert last < 0.01 * first
    _, without = distilled(1e-9, **effort)
    assert without > 0.2 * first


def test_a_trial_is_taught_by_the_dense_model(workbench: MakeWorkbench, point: MakePoint) -> None:
    """Labels that say nothing: without a teacher the network forgets, with one it stays what it was."""
    made = workbench()
    blind = [(inputs, (targets + 1) % 4) for inputs, targets in made.task.training()]
    errors = []
    for share in (0.0, 1.0):
        task = dataclasses.replace(made.task, training_batches=blind)
        bench = workbench(task, epochs=2, learning_rate=5e-3, distillation=share)
        modes = [module.training for module in bench.dense.modules()]
        before = copy.deepcopy(bench.dense.state_dict())
        outcome = run_trial(bench, point(), 0)
        assert outcome.state is State.COMPLETE, outcome.reason
        errors.append(outcome.measurements["error"])
        assert all(torch.equal(tensor, before[name]) for name, tensor in bench.dense.state_dict().items())
        assert [module.training for module in bench.dense.modules()] == modes
    assert errors[0] > 0.8
    assert errors[1] < 0.15


# ---- tasks that cannot -----------------------------------------------------------------------------------

DISTILLED = TrainingSettings(distillation=0.5)


class Own(Task):
    """A task of one's own that does not say how it is distilled."""

    def model(self) -> nn.Module:
        return nn.Linear(5, 3)

    def example(self) -> Tensor:
        return INPUTS[:1]

    def training(self) -> list[Any]:
        return [BATCH]

    selection = test = training

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, batches: Any) -> dict[str, float]:
        return {"error": 0.0}


def test_distillation_with_a_task_without_a_distilled_loss_fails_before_the_search() -> None:
    check_task(Own(), Own().model(), TrainingSettings())
    with pytest.raises(TaskError, match=r"Own does not say how .*\. Write its method distilled_loss"):
        check_task(Own(), Own().model(), DISTILLED)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: 0.5, "loss is float; it must be one number as a tensor"),
        (lambda: torch.zeros(()), "has a gradient"),
        (lambda: 1 / 0, r"loss\(\) or distilled_loss\(\) raised ZeroDivisionError"),
    ],
)
def test_distilled_losses_that_cannot_be_used_are_refused(answer: Callable[[], Any], message: str) -> None:
    class Wrong(Own):
        def distilled_loss(self, *_: Any) -> Any:
            return answer()

    with pytest.raises(TaskError, match=message):
        check_task(Wrong(), Own().model(), DISTILLED)


def test_distillation_refuses_outputs_without_classes() -> None:
    batch = (INPUTS, torch.zeros(12, 1))
    task = Supervised(nn.Linear(5, 1), [batch], [batch], [batch], F.mse_loss)
    with pytest.raises(TaskError, match=r"a tensor of shape \(12, 1\); distillation compares classes"):
        check_task(task, task.network, DISTILLED)
