"""What a task's loss gives its model, so that the model can be run on it as it is deployed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from rank_search.layers import Call, copied
from rank_search.quantization.outputs import Feed
from rank_search.tasks import Batch, Task, as_for_loss, seeded, task_errors


def task_inputs(task: Task, batches: Iterable[Batch]) -> tuple[Feed, list[Batch]]:
    """How a model is run on batches of training data, and the batches for that.

    A loss is asked for in training mode, where a model may give other outputs than it does in evaluation. So it is
    asked for once, of a copy of the model, to see what it calls the model with; that is what the model is run on. A
    loss that does not call the model as a whole (but its parts) is what runs it then.

    Raises:
        TaskError: the loss raises.
    """
    batches = list(batches)
    model, seen = copied(task.model()), list[Batch]()

    def look(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append(Call(positional, named))

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        for batch in batches:
            calls: list[Call] = []
            with seeded(0), torch.no_grad(), as_for_loss(model), task_errors("loss()"):
                task.loss(model, batch)
            seen.append(calls)
    finally:
        handle.remove()
    return (_call, seen) if seen and all(seen) else (task.loss, batches)


def _call(model: nn.Module, calls: list[Call]) -> None:
    for call in calls:
        call.on(model)
