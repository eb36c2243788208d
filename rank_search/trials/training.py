"""Fine-tuning for a budget of epochs, which can be left at any batch and gone on with elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, final

from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from rank_search.trials.checkpoint import Checkpoint
from rank_search.trials.effort import Diverged, Effort
from rank_search.trials.optimizers import make_optimizers, memories, rate_factor, set_memories, set_rates, warmed_up
from rank_search.trials.passes import Passes, count_batches
from rank_search.trials.penalties import orthogonality
from rank_search.trials.randomness import generators, set_generators
from rank_search.trials.rate import latents
from rank_search.trials.settings import TrainingSettings
from rank_search.trials.task import Batch, Task, task_loss

MODEL: Final = "model"
"""The part of a checkpoint that holds the model's state."""


def fine_tune(task: Task, model: nn.Module, effort: Effort) -> Diverged | None:
    """Train the model in place: task loss + strength × orthogonality + λ × rate; it ends in eval mode.

    Deterministic given the state of torch's global generator (see `seeded`). Returns None, or where it diverged.
    """
    return Training(task, model, effort).advance(effort.settings.epochs)


@final
class Training:
    """A model on its way through the epochs of its settings.

    Left after any batch, kept, and restored around a model of the same shape, on a machine with the same software
    and hardware, it goes on bit for bit as if it had never been left (on a GPU as far as its kernels are
    deterministic). See `Passes` for what that asks of the data.

    Args:
        per_epoch: batches in an epoch, if they have been counted before.
    """

    def __init__(self, task: Task, model: nn.Module, effort: Effort, per_epoch: int | None = None) -> None:
        settings = effort.settings
        self._objective = _Objective(task, model, effort.orthogonality, settings.orthogonality_penalty)
        self._model, self._effort = model, effort
        if per_epoch is None:
            per_epoch = count_batches(task) if settings.epochs > 0 else 0
        self._per_epoch = per_epoch
        self._optimizers = make_optimizers(model, effort)
        self._rates = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]
        self._batches = Passes(task)
        self._step = 0

    def advance(self, epochs: float) -> Diverged | None:
        """Train until so many epochs are done in all; the model ends in eval mode."""
        last = self._steps(epochs)
        self._model.train()
        try:
            while self._step < last:
                if diverged := self._advance_by(next(self._batches)):
                    return diverged
        finally:
            self._model.eval()
        broken = [name for name, parameter in self._model.named_parameters() if not parameter.isfinite().all()]
        return Diverged(f"{', '.join(broken)} not finite after step {self._step}") if broken else None

    def _steps(self, epochs: float) -> int:
        return math.ceil(round(epochs * self._per_epoch, 6))  # so that 0.7 of 10 batches is 7, not 8

    def _advance_by(self, batch: Batch) -> Diverged | None:
        settings, step, total = self._effort.settings, self._step, self._steps(self._effort.settings.epochs)
        self._effort.stop()
        set_rates(self._optimizers, self._rates, rate_factor(settings, step, total))
        loss = _loss(self._objective, batch, self._effort, warmed_up(settings, step, total))
        if not math.isfinite(value := float(loss.detach())):
            return Diverged(f"the loss was {value} in epoch {step // self._per_epoch + 1}, step {step + 1} of {total}")
        _descend(self._optimizers, loss, self._model, settings)
        self._step += 1
        return None

    def kept(self, **about: Any) -> Checkpoint:
        """This moment; its tensors are the living ones, so turn it to bytes before anything goes on."""
        entropy = self._effort.entropy
        place = {"step": self._step, "per_epoch": self._per_epoch, "taken": self._batches.taken}
        parts: dict[str, Mapping[str, Tensor]] = {
            MODEL: self._model.state_dict(),
            "quantizer": {} if entropy is None else entropy.quantizer.state_dict(),
            "optimizers": memories(self._optimizers),
            "generators at the pass": self._batches.began,
            "generators": generators(),
        }
        return Checkpoint(about | place, parts)

    @classmethod
    def restored(cls, task: Task, model: nn.Module, effort: Effort, kept: Checkpoint) -> Training:
        """The training at that moment, around a model that has its weights already.

        Raises:
            ArtifactError: the training data has fewer batches than then.
        """
        training = cls(task, model, effort, kept.about["per_epoch"])
        training._step = kept.about["step"]
        if effort.entropy is not None:
            effort.entropy.quantizer.load_state_dict(kept.part("quantizer"))
        set_memories(training._optimizers, kept.part("optimizers"))
        if kept.about["taken"] != kept.about["per_epoch"]:  # else the next batch begins a new pass
            training._batches.skip(kept.part("generators at the pass"), kept.about["taken"])
        set_generators(kept.part("generators"))
        return training


@final
class _Objective(nn.Module):
    """Loss and orthogonality of one batch, as a module so that `functional_call` can swap its parameters."""

    def __init__(self, task: Task, model: nn.Module, strength: float, kind: Literal["so", "srip"]) -> None:
        super().__init__()
        self.task, self.model, self.strength, self.kind = task, model, strength, kind

    def forward(self, batch: Batch) -> Tensor:
        loss = task_loss(self.task, self.model, batch)
        return loss + self.strength * orthogonality(self.model, self.kind) if self.strength > 0 else loss


def _loss(objective: _Objective, batch: Batch, effort: Effort, warmth: float) -> Tensor:
    if effort.entropy is None:
        plain: Tensor = objective(batch)
        return plain
    rounded, bits = effort.entropy.quantizer(latents(objective.model))
    swapped = {f"model.{name}": tensor for name, tensor in rounded.items()}
    penalized: Tensor = functional_call(objective, swapped, (batch,)) + bits * (warmth * effort.entropy.weight)
    return penalized


def _descend(optimizers: list[Optimizer], loss: Tensor, model: nn.Module, settings: TrainingSettings) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if math.isfinite(settings.gradient_clip):
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
    for optimizer in optimizers:
        optimizer.step()
