"""Batch-norm statistics, taken again after weights have changed under them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rank_search.trials.effort import Stop, never
from rank_search.trials.task import Task, passed


@torch.no_grad()
def reestimate_batchnorm(task: Task, model: nn.Module, stop: Stop = never) -> None:
    """Set every batch norm's statistics to the average over one pass of the training data.

    Everything else runs as in eval mode (no dropout), where it ends; momenta stay as they are. A model without
    batch norms costs nothing. The average is of per-batch statistics (momentum None: cumulative).
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        for batch in passed(task.training(), "training data"):
            stop()
            task.loss(model, batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
