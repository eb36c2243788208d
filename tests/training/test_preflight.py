"""What would fail in every trial is said before the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rank_search.errors import TaskError
from rank_search.tasks import Supervised
from rank_search.training import TrainingSettings, check_task

TRAINING = TrainingSettings(epochs=1)


def rehearsed(task: Supervised, **changes: object) -> None:
    check_task(replace(task, **changes), task.network, TRAINING)


def test_preflight_changes_nothing(task: Supervised) -> None:
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    generator = torch.get_rng_state()
    rehearsed(task)
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not task.network.training


def test_preflight_passes_a_frozen_model(task: Supervised) -> None:
    asked = [parameter.requires_grad for parameter in task.network.parameters()]
    try:
        task.network.requires_grad_(False)
        rehearsed(task)
        assert not any(parameter.requires_grad for parameter in task.network.parameters())
    finally:
        for parameter, wanted in zip(task.network.parameters(), asked, strict=True):
            parameter.requires_grad_(wanted)


def raising(outputs: Tensor, targets: Tensor) -> Tensor:
    raise IndexError("no such\n class")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (raising, r"training\(\) or loss\(\) raised IndexError: no such class\. Correct the task"),
        (
            lambda outputs, targets: F.cross_entropy(outputs, targets).item(),
            "loss is float; it must be one number as a tensor",
        ),
        (lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"), r"of shape \(40,\)"),
        (lambda outputs, targets: F.cross_entropy(outputs.detach(), targets), "has a gradient"),
        (lambda outputs, targets: F.cross_entropy(outputs * torch.inf, targets), "batch it is nan"),
    ],
)
def test_preflight_refuses_losses_that_cannot_be_used(
    loss: Callable[[Tensor, Tensor], Tensor], message: str, task: Supervised
) -> None:
    with pytest.raises(TaskError, match=message):
        rehearsed(task, loss_function=loss)


def test_preflight_refuses_a_task_without_data(task: Supervised) -> None:
    with pytest.raises(TaskError, match="training data yielded no batch"):
        rehearsed(task, training_batches=[])


def test_preflight_without_training_asks_for_no_loss(task: Supervised) -> None:
    check_task(replace(task, training_batches=[], loss_function=raising), task.network, TrainingSettings(epochs=0))
