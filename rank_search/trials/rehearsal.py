"""Before a search begins, one step of training is rehearsed: what would fail in every trial is said at once."""

from __future__ import annotations

import math
from copy import deepcopy

from torch import nn

from rank_search.errors import TaskError
from rank_search.trials.randomness import seeded
from rank_search.trials.settings import TrainingSettings
from rank_search.trials.task import Task, asked, passed, task_loss


def rehearse(task: Task, model: nn.Module, training: TrainingSettings) -> None:
    """Ask for the loss of one training batch, as fine-tuning does; without epochs there is nothing to rehearse.

    Args:
        model: the dense model; it is not changed.

    Raises:
        TaskError: there is no batch, or the loss raises or is not one finite number with a gradient.
    """
    if training.epochs == 0:
        return
    copied = _trainable(model)
    with seeded(0), asked("training() or loss()"):
        loss = task_loss(task, copied, next(passed(task.training(), "training data")))
    if not loss.requires_grad:
        raise TaskError(
            "A task's loss has a gradient, so that models can be fine-tuned; this one has none. Compute it from "
            "the model's outputs, without detach(), item() or no_grad()."
        )
    if not math.isfinite(found := float(loss.detach())):
        raise TaskError(
            f"The dense model's loss is where fine-tuning starts from; on the first training batch it is {found}. "
            "Check the loss, the training data and the weights."
        )


def _trainable(model: nn.Module) -> nn.Module:
    copied = deepcopy(model).train()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # factors are trained even if the model is frozen
    return copied
