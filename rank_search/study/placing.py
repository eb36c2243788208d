"""Which device a process computes on, and the task there."""

from __future__ import annotations

import logging
from typing import Final

import torch
from torch import nn

from rank_search.errors import LaunchError
from rank_search.layers import tensors_in
from rank_search.tasks import Task, on_device

_AUTO: Final = "auto"
_LEFT: Final = ("cpu", "mps", "meta")
"""Where `auto` does not leave a model: Metal has no float64."""

_steps: Final = logging.getLogger("rank_search.steps")


def placed(task: Task, model: nn.Module, wanted: str, place: int = 0) -> Task:
    """The task on the device that a study file asks for; the task itself where that is its device already.

    `auto` leaves a model on the GPU where the task has put it, and brings batches there; a model that is on several
    devices stays on them, and its batches where they are.

    Args:
        model: the task's.
        wanted: see `device_of`.
        place: likewise.

    Raises:
        LaunchError: there is no such device here.
    """
    own = {each.device for each in model.parameters()}
    is_placed = wanted == _AUTO and any(each.type not in _LEFT for each in own)
    if is_placed and len(own) > 1:
        return task
    device = own.pop() if is_placed else device_of(wanted, place)
    if device.type == "cpu" and all(each.is_meta or each.device == device for each in tensors_in(model)):
        return task
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what waits, and the generators that are kept, are those of the current one
        _steps.info("Models and batches go to %s, which is %s", device, torch.cuda.get_device_name(device))
    return on_device(task, device)


def device_of(wanted: str, place: int = 0) -> torch.device:
    """The device of a process.

    Args:
        wanted: `[launch] device`.
        place: which one the process is of the workers on the machine, which take its GPUs in turn.

    Raises:
        LaunchError: there is no such device here.

    >>> device_of("cpu")
    device(type='cpu')
    """
    if wanted == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if wanted == _AUTO and not count:
        return torch.device("cpu")
    number = torch.device(wanted).index if ":" in wanted else place % max(count, 1)
    if number >= count:
        raise LaunchError(
            f'[launch] device = "{wanted}": PyTorch sees {_counted(count)} here. Name one that is there, or "auto", '
            "which takes the CPU where there is none; on Ray, gpus_per_trial gives each worker its own."
        )
    return torch.device("cuda", number)


def _counted(count: int) -> str:
    return {0: "no GPU", 1: "one GPU, cuda:0,"}.get(count, f"{count} GPUs, cuda:0 to cuda:{count - 1},")
