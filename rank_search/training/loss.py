"""What a training minimizes on one batch: the task's loss and the penalties."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.func import functional_call

from rank_search.quantization import latents
from rank_search.tasks import Batch, Task, task_distilled_loss, task_loss
from rank_search.training.fine_tuning import FineTuning
from rank_search.training.penalties import frobenius, orthogonality
from rank_search.training.schedules import relaxed, steps_are_final, warmed_up


@final
class TrainingLoss(nn.Module):
    """Task loss + strength × orthogonality + decay of products + λ × rate.

    A module so that `functional_call` can swap its parameters. The effort with its teacher is plain data,
    not a submodule: no swap and no training mode reaches the teacher.
    """

    def __init__(self, task: Task, model: nn.Module, effort: FineTuning) -> None:
        super().__init__()
        self.task, self.model, self.effort = task, model, effort

    def of(self, batch: Batch, step: int, total: int) -> Tensor:
        """All of it on one batch, in this step of all steps."""
        entropy, settings = self.effort.entropy, self.effort.settings
        strength = self.effort.orthogonality * relaxed(settings, step, total)
        if entropy is None:
            plain: Tensor = self(batch, strength)
            return plain
        if steps_are_final(step, total):
            entropy.quantizer.settle_steps_()
        rounded, bits = entropy.quantizer(latents(self.model))
        swapped = {f"model.{name}": tensor for name, tensor in rounded.items()}
        penalized: Tensor = functional_call(self, swapped, (batch, strength))
        weighted: Tensor = bits * (warmed_up(settings, step, total) * entropy.weight)
        return penalized + weighted

    def forward(self, batch: Batch, strength: float) -> Tensor:
        """Everything but the rate, which is not a function of the rounded weights."""
        loss, settings = self._task_loss(batch), self.effort.settings
        if strength > 0:
            loss = loss + strength * orthogonality(self.model, settings.orthogonality_penalty)
        if settings.weight_decay_on == "product" and settings.weight_decay > 0 and self.effort.entropy is None:
            loss = loss + settings.weight_decay * frobenius(self.model)
        return loss

    def _task_loss(self, batch: Batch) -> Tensor:
        if self.effort.teacher is None:
            return task_loss(self.task, self.model, batch)
        settings = self.effort.settings
        share, temperature = settings.distillation, settings.distillation_temperature
        return task_distilled_loss(self.task, self.model, self.effort.teacher, batch, share, temperature)
