"""Fine-tuning for a budget of epochs, and batch-norm statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from rank_search.trials.penalties import frames, orthogonality
from rank_search.trials.rate import Quantizer, latents
from rank_search.trials.settings import TrainingSettings
from rank_search.trials.task import Batch, Task, passed, task_loss

Stop = Callable[[], None]
"""Called between batches; raises to end the trial."""


def never() -> None:
    """Do not stop."""


@dataclass(frozen=True)
class Diverged:
    """Training left the finite numbers: where, and at which loss."""

    reason: str


@dataclass(frozen=True)
class EntropyPenalty:
    """The quantizer of a model's latents, and what a bit costs.

    Attributes:
        weight: of one bit, as it enters the loss: λ divided by the dense model's number of weights, so that
            λ means the same at every rank.
    """

    quantizer: Quantizer
    weight: float


@dataclass(frozen=True)
class Effort:
    """What one fine-tuning is made of.

    Attributes:
        orthogonality: strength of the orthogonality penalty; 0 = off.
        entropy: the entropy penalty; None = off.
    """

    settings: TrainingSettings
    orthogonality: float = 0.0
    entropy: EntropyPenalty | None = None
    stop: Stop = field(default=never)


class _Objective(nn.Module):
    """Loss and orthogonality of one batch, as a module so that `functional_call` can swap its parameters."""

    def __init__(self, task: Task, model: nn.Module, strength: float, kind: Literal["so", "srip"]) -> None:
        super().__init__()
        self.task, self.model, self.strength, self.kind = task, model, strength, kind

    def forward(self, batch: Batch) -> Tensor:
        loss = task_loss(self.task, self.model, batch)
        return loss + self.strength * orthogonality(self.model, self.kind) if self.strength > 0 else loss


def fine_tune(task: Task, model: nn.Module, effort: Effort) -> Diverged | None:
    """Train the model in place: task loss + strength × orthogonality + λ × rate; it ends in eval mode.

    Deterministic given the state of torch's global generator (see `seeded`). Returns None, or where it diverged.
    """
    settings = effort.settings
    objective = _Objective(task, model, effort.orthogonality, settings.orthogonality_penalty)
    per_epoch = _count(task) if settings.epochs > 0 else 0
    total = math.ceil(round(settings.epochs * per_epoch, 6))  # so that 0.7 of 10 batches is 7, not 8
    optimizers = _optimizers(model, effort)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    model.train()
    try:
        for step, batch in zip(range(total), _forever(task), strict=False):
            effort.stop()
            _set_rates(optimizers, rates, _rate_factor(settings, step, total))
            loss = _loss(objective, batch, effort, _warmed_up(settings, step, total))
            if not math.isfinite(value := float(loss.detach())):
                return Diverged(f"the loss was {value} in epoch {step // per_epoch + 1}, step {step + 1} of {total}")
            _descend(optimizers, loss, model, settings)
    finally:
        model.eval()
    broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    return Diverged(f"{', '.join(broken)} not finite after step {total}") if broken else None


def _loss(objective: _Objective, batch: Batch, effort: Effort, warmth: float) -> Tensor:
    if effort.entropy is None:
        plain: Tensor = objective(batch)
        return plain
    rounded, bits = effort.entropy.quantizer(latents(objective.model))
    swapped = {f"model.{name}": tensor for name, tensor in rounded.items()}
    penalized: Tensor = functional_call(objective, swapped, (batch,)) + bits * (warmth * effort.entropy.weight)
    return penalized


def _count(task: Task) -> int:
    """Batches in an epoch, at least one."""
    batches = task.training()
    known = len(batches) if isinstance(batches, Sized) else 0
    return known or sum(1 for _ in passed(batches, "training data"))


def _forever(task: Task) -> Iterator[Batch]:
    while True:
        yield from passed(task.training(), "training data")


def _descend(
    optimizers: list[torch.optim.Optimizer], loss: Tensor, model: nn.Module, settings: TrainingSettings
) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if math.isfinite(settings.gradient_clip):
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
    for optimizer in optimizers:
        optimizer.step()


# ---- schedules and groups ------------------------------------------------------------------------------


def _rate_factor(settings: TrainingSettings, step: int, total: int) -> float:
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * step / total))


def _warmed_up(settings: TrainingSettings, step: int, total: int) -> float:
    rise = settings.entropy_warmup * total
    return min(1.0, (step + 1) / rise) if rise > 0 else 1.0


def _optimizers(model: nn.Module, effort: Effort) -> list[torch.optim.Optimizer]:
    """One for the weights, and one for the quantizer if there is one."""
    settings = effort.settings
    decayed, kept = _decayed_and_kept(model, effort)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = []
    if settings.optimizer == "sgd":
        nesterov, momentum = settings.momentum > 0, settings.momentum
        optimizers.append(torch.optim.SGD(groups, settings.learning_rate, momentum=momentum, nesterov=nesterov))
    else:
        optimizers.append(torch.optim.AdamW(groups, settings.learning_rate))
    if effort.entropy is not None:
        learned, rate = effort.entropy.quantizer.parameters(), settings.entropy_learning_rate
        # A shorter memory than usual: the gradients of steps change their scale while the penalty warms up.
        optimizers.append(torch.optim.Adam(learned, rate, betas=(0.9, 0.95)))
    return optimizers


def _set_rates(optimizers: list[torch.optim.Optimizer], bases: list[float], factor: float) -> None:
    for optimizer, base in zip(optimizers, bases, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = base * factor


def _decayed_and_kept(model: nn.Module, effort: Effort) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with and without weight decay: frames under a penalty and latents are pulled already."""
    framed = {frame.untyped_storage().data_ptr() for frame in frames(model)} if effort.orthogonality > 0 else set()
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        pulled = effort.entropy is not None or parameter.untyped_storage().data_ptr() in framed
        (kept if pulled or parameter.dim() < 2 else decayed).append(parameter)
    return decayed, kept


# ---- randomness and statistics -------------------------------------------------------------------------


@contextmanager
def seeded(rng_seed: int) -> Iterator[None]:
    """Torch's global generators at a seed, and afterwards as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(rng_seed)
        yield


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
