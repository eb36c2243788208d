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

_steps: Final = logging.getLogger("rank_search.steps")


def placed(task: Task, model: nn.Module, wanted: str, place: int = 0) -> Task:
    """The task on the device that a study file asks for; the task itself where that is its device already.

    Args:
        model: the task's.
        wanted: see `device_of`.
        place: likewise.

    Raises:
        LaunchError: there is no such device here.
    """
    device, at_present = device_of(wanted, place), {each.device for each in tensors_in(model) if not each.is_meta}
    is_placed = wanted == _AUTO and any(each.type != "cpu" for each in at_present)
    if is_placed or (device.type == "cpu" and at_present <= {device}):
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
