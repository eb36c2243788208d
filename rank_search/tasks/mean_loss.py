"""The loss of a model on the data that calibration looks at."""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn

from rank_search.tasks.modes import as_for_loss
from rank_search.tasks.randomness import seeded
from rank_search.tasks.task import Task, checked_batches, task_errors, task_loss


@torch.no_grad()
def mean_loss(task: Task, model: nn.Module, batches: int, rng_seed: int = 0) -> float:
    """The mean of the task's loss over the first batches of a training pass, as `input_moments` looks at them.

    Every batch counts the same. No dropout; the model is not changed.

    Raises:
        TaskError: the task raises, has no training data, or its loss is no scalar.
    """
    with seeded(rng_seed), as_for_loss(model), task_errors("training() or loss()"):
        some = islice(checked_batches(task.training(), "training data"), batches)
        losses = [float(task_loss(task, model, batch)) for batch in some]
    return sum(losses) / len(losses)
