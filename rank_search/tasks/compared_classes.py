"""Whether a task's outputs are compared as logits of classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.tasks.agreement import AgreementTask
from rank_search.tasks.on_device import without_device
from rank_search.tasks.supervised import Supervised
from rank_search.tasks.task import Task


def compares_classes(task: Task, outputs: object) -> bool:
    """Whether the last dimension of these outputs is known as logits of classes.

    By the loss of a `Supervised` task, which has classes along the second dimension; as an `AgreementTask` compares
    them; or as another task says how models are distilled.

    >>> import torch
    >>> compares_classes(Supervised(nn.Linear(2, 2), [], []), torch.zeros(3, 2))
    True
    >>> compares_classes(Supervised(nn.Linear(2, 2), [], [], loss_function=F.mse_loss), torch.zeros(3, 2))
    False
    """
    task = without_device(task)
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or outputs.shape[-1] < 2:
        return False
    if isinstance(task, AgreementTask):
        return task.gives_classes()
    if not isinstance(task, Supervised):
        return type(task).distilled_loss is not Task.distilled_loss
    if outputs.dim() > 2:
        return False
    loss = task.loss_function
    return isinstance(loss, nn.CrossEntropyLoss) or getattr(loss, "func", loss) is F.cross_entropy
