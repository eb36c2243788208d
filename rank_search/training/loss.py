"""What a training minimizes on one batch: the task's loss and the penalties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from torch import Tensor, nn
from torch.func import functional_call

from rank_search.quantization import latents
from rank_search.tasks import Batch, Task, task_distilled_loss, task_loss
from rank_search.training.fine_tuning import FineTuning
from rank_search.training.forward_precision import forwards_in
from rank_search.training.ordered_steps import OrderedSteps
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
        self._ordered = OrderedSteps(model, effort.ordered) if effort.ordered > 0 else None

    def of(self, batch: Batch, step: int, total: int) -> Tensor:
        """All of it on one batch, in this step of all steps; penalties are of the whole factors in every step."""
        strength = self.effort.orthogonality * relaxed(self.effort.settings, step, total)
        values, bits = self._rounded(step, total)
        trained = values if self._ordered is None else self._ordered.cut(values)
        task_loss = self._with(trained, lambda: self._task_loss(batch))
        penalized = self._with(values, lambda: self._penalized(task_loss, strength))
        entropy = self.effort.entropy
        if entropy is None or bits is None:
            return penalized
        weighted: Tensor = bits * (warmed_up(self.effort.settings, step, total) * entropy.weight)
        return penalized + weighted

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        """What is computed; `functional_call` puts other tensors in the place of parameters meanwhile."""
        return compute()

    def _with(self, values: Mapping[str, Tensor], compute: Callable[[], Tensor]) -> Tensor:
        swapped = {f"model.{name}": tensor for name, tensor in values.items()}
        found: Tensor = functional_call(self, swapped, (compute,)) if swapped else compute()
        return found

    def _rounded(self, step: int, total: int) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """What is rounded in this step, by name, and the bits of it; nothing without an entropy penalty."""
        entropy = self.effort.entropy
        if entropy is None:
            return {}, None
        if steps_are_final(step, total):
            entropy.quantizer.settle_steps_()
        rounded: tuple[Mapping[str, Tensor], Tensor] = entropy.quantizer(latents(self.model))
        return rounded

    def _penalized(self, loss: Tensor, strength: float) -> Tensor:
        """Everything but the rate, which is not a function of the rounded weights."""
        settings = self.effort.settings
        if strength > 0:
            loss = loss + strength * orthogonality(self.model, settings.orthogonality_penalty)
        if settings.weight_decay_on == "product" and settings.weight_decay > 0 and self.effort.entropy is None:
            loss = loss + settings.weight_decay * frobenius(self.model)
        return loss

    def _task_loss(self, batch: Batch) -> Tensor:
        settings, teacher = self.effort.settings, self.effort.teacher
        with forwards_in(settings.precision, self.model, *([] if teacher is None else [teacher])):
            if teacher is None:
                return task_loss(self.task, self.model, batch)
            share, temperature = settings.distillation, settings.distillation_temperature
            return task_distilled_loss(self.task, self.model, teacher, batch, share, temperature)
