"""Before a search begins, what would fail in every trial, or only at its end, is rehearsed and said at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import buffers_kept, copied
from rank_search.tasks import (
    Batch,
    Task,
    as_for_loss,
    checked_batches,
    is_lone,
    seeded,
    task_distilled_loss,
    task_errors,
    task_loss,
    task_sampled_loss,
)
from rank_search.training.settings import TrainingSettings
from rank_search.training.thawing import thaw

_log = logging.getLogger(__name__)


def check_task(task: Task, model: nn.Module, training: TrainingSettings) -> None:
    """Ask for the loss of one training batch, as fine-tuning does; without epochs there is nothing to check.

    Args:
        model: the dense model; it is not changed.

    Raises:
        TaskError: there is no batch, or the loss raises or is not one finite number with a gradient.
    """
    if training.epochs == 0:
        return
    loss = _loss(task, model, training)
    if not loss.requires_grad:
        frozen = sum(not each.requires_grad for each in model.parameters())
        also = (
            f" Of the model's parameters {frozen} are frozen: some that the loss depends on must not be."
            if frozen
            else ""
        )
        raise TaskError(
            "A task's loss has a gradient, so that models can be fine-tuned; this one has none. Compute it from "
            f"the model's outputs, without detach(), item() or no_grad().{also}"
        )
    if not math.isfinite(found := float(loss.detach())):
        raise TaskError(
            f"The dense model's loss is where fine-tuning starts from; on the first training batch it is {found}. "
            "Check the loss, the training data and the weights."
        )


@torch.no_grad()
def check_sampled(task: Task, model: nn.Module) -> None:
    """Ask for the loss of one training batch on targets drawn from the model's predictions.

    Args:
        model: the dense model; it is not changed.

    Raises:
        TaskError: there is no batch, the loss raises or is not one number, or the task cannot draw targets.
    """
    with seeded(0), task_errors("training() or sampled_loss()"), as_for_loss(model):
        task_sampled_loss(task, model, next(checked_batches(task.training(), "training data")))


def check_test(task: Task) -> None:
    """Ask for the first batch of the test data, if the task has any: it is not measured on before the end of a search.

    Raises:
        TaskError: it yields none.
    """
    with seeded(0), task_errors("test() or evaluate()"):
        if (batches := task.test()) is not None:
            next(checked_batches(batches, "test data"))


def _loss(task: Task, model: nn.Module, training: TrainingSettings) -> Tensor:
    trainable, distilled = _trainable(model), training.distillation > 0
    asked = "training(), loss() or distilled_loss()" if distilled else "training() or loss()"
    with seeded(0), buffers_kept(model), task_errors(asked):
        return _first_loss(task, trainable, model if distilled else None, task.training(), training)


def _first_loss(
    task: Task, model: nn.Module, teacher: nn.Module | None, batches: Iterable[Batch], training: TrainingSettings
) -> Tensor:
    """Of the first batch that norms can be trained with."""
    for batch in checked_batches(batches, "training data"):
        try:
            if teacher is not None:
                share, temperature = training.distillation, training.distillation_temperature
                return task_distilled_loss(task, model, teacher, batch, share, temperature)
            return task_loss(task, model, batch)
        except ValueError as error:
            if not is_lone(error):
                raise
    raise TaskError(
        "Norms are trained with more than one example in a batch; the training data has one in each. Use larger "
        "batches."
    )


def _trainable(model: nn.Module) -> nn.Module:
    trainable = copied(model).train()
    if thaw(trainable):
        _log.warning(
            "Every parameter of the model is frozen (requires_grad = False); trials train all of them in their copies. "
            "[training] epochs = 0 trains none."
        )
    return trainable
