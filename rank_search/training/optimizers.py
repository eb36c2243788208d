"""Optimizers, the groups of their parameters, and schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rank_search.training.after_steps import apart_ids
from rank_search.training.fine_tuning import FineTuning
from rank_search.training.penalties import factor_ids, frames


def make_optimizers(model: nn.Module, effort: FineTuning) -> list[Optimizer]:
    """One for the weights, and one for the quantizer if there is one."""
    settings = effort.settings
    decayed, kept = _decayed_and_kept(model, effort)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizers: list[Optimizer] = []
    if settings.optimizer == "sgd":
        nesterov, momentum = settings.momentum > 0, settings.momentum
        optimizers.append(torch.optim.SGD(groups, settings.learning_rate, momentum=momentum, nesterov=nesterov))
    else:
        optimizers.append(torch.optim.AdamW(groups, settings.learning_rate, eps=_least_denominator(model)))
    if effort.entropy is not None:
        learned, rate = effort.entropy.quantizer.parameters(), settings.entropy_learning_rate
        # A shorter memory than usual: the gradients of steps change their scale while the penalty warms up.
        optimizers.append(torch.optim.Adam(learned, rate, betas=(0.9, 0.95)))
    return optimizers


def _least_denominator(model: nn.Module) -> float:
    """AdamW's ε: as usual, or the smallest normal number of float16 where any weight is that; 10⁻⁸ is zero there."""
    is_half = any(parameter.dtype == torch.float16 for parameter in model.parameters())
    return torch.finfo(torch.float16).tiny if is_half else 1e-8


def descent_rate(optimizer: Optimizer) -> float:
    """How far the weights' optimizer moves along a gradient: in all steps after it, where it has a momentum.

    >>> descent_rate(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.75))
    0.4
    """
    group = optimizer.param_groups[0]
    return float(group["lr"] / (1 - group.get("momentum", 0.0)))


def _decayed_and_kept(model: nn.Module, effort: FineTuning) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with and without weight decay: frames under a penalty, latents and the factors of a product that
    is decayed as a whole are pulled already. What forms move themselves is in neither.
    """
    settings, apart = effort.settings, apart_ids(model)
    factors = factor_ids(model) if settings.weight_decay_on == "product" else set()
    framed = {frame.untyped_storage().data_ptr() for frame in frames(model)} if effort.orthogonality > 0 else set()
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad or id(parameter) in apart:
            continue
        pulled = effort.entropy is not None or id(parameter) in factors
        pulled = pulled or parameter.untyped_storage().data_ptr() in framed
        (kept if pulled or parameter.dim() < 2 else decayed).append(parameter)
    return decayed, kept


# ---- what they remember --------------------------------------------------------------------------------


def memories(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Everything that the optimizers remember of their parameters, as `optimizer.parameter.name`."""
    return {
        f"{number}.{parameter}.{name}": value
        for number, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None  # SGD's momentum before its first step
    }


def set_memories(optimizers: Sequence[Optimizer], found: Mapping[str, Tensor]) -> None:
    """Let fresh optimizers of the same parameters remember that."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for path, value in found.items():
        number, parameter, name = path.split(".")
        states[int(number)].setdefault(int(parameter), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


# ---- their rates ---------------------------------------------------------------------------------------


def set_rates(optimizers: Sequence[Optimizer], bases: Sequence[float], factor: float) -> None:
    """Learning rates as that share of the first ones."""
    for optimizer, base in zip(optimizers, bases, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = base * factor
