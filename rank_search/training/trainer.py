"""Fine-tuning for a budget of epochs, which can be left at any batch and gone on with elsewhere."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, final

from torch import Tensor, nn
from torch.optim import Optimizer

from rank_search.errors import CheckpointError, TaskError
from rank_search.layers import buffers_kept
from rank_search.quantization import reestimate_batchnorm
from rank_search.tasks import Batch, Task, generators, is_lone, set_generators
from rank_search.training.after_steps import AfterSteps, apart_ids
from rank_search.training.average import Average
from rank_search.training.checkpoint import Checkpoint
from rank_search.training.fine_tuning import Diverged, FineTuning
from rank_search.training.loss import TrainingLoss
from rank_search.training.optimizers import descent_rate, make_optimizers, memories, set_memories, set_rates
from rank_search.training.resumable_batches import ResumableBatches, count_batches
from rank_search.training.schedules import rate_factor, steps_are_final
from rank_search.training.settings import TrainingSettings
from rank_search.training.shrinking import Shrinking
from rank_search.training.thawing import thaw

MODEL: Final = "model"
"""The part of a checkpoint that holds the model's state."""

_log = logging.getLogger(__name__)


AfterStep = Callable[["Trainer"], None]
"""Called with the training after each of its steps."""


def fine_tune(
    task: Task,
    model: nn.Module,
    effort: FineTuning,
    start: Checkpoint | None = None,
    after_step: AfterStep | None = None,
) -> Diverged | None:
    """Train the model in place: task loss + strength × orthogonality + λ × rate; it ends in eval mode.

    With `average` it ends with the averaged weights, and statistics of batch norms that go with them.
    Deterministic given the state of the global generators (see `seeded`). Returns None, or where it diverged.

    Args:
        start: of the same training, to go on from; the model has its weights already.
    """
    settings = effort.settings
    training = Trainer(task, model, effort) if start is None else Trainer.restored(task, model, effort, start)
    diverged = training.advance(settings.epochs, after_step)
    if diverged is None and training.settle():
        reestimate_batchnorm(task, model, settings.norm_batches)
    return diverged


@final
class Trainer:
    """A model on its way through the epochs of its settings.

    Left after any batch, kept, and restored around a model of the same shape, on a machine with the same software
    and hardware, it goes on bit for bit as if it had never been left (on a GPU as far as its kernels are
    deterministic). See `ResumableBatches` for what that asks of the data.

    Args:
        per_epoch: batches in an epoch, if they have been counted before.
    """

    def __init__(self, task: Task, model: nn.Module, effort: FineTuning, per_epoch: int | None = None) -> None:
        thaw(model)
        self._loss = TrainingLoss(task, model, effort)
        self._model, self._effort = model, effort
        if per_epoch is None:
            per_epoch = count_batches(task) if effort.settings.epochs > 0 else 0
        self._per_epoch = per_epoch
        self._optimizers = make_optimizers(model, effort)
        self._rates = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]
        self._batches = ResumableBatches(task)
        self._average = Average(model, effort.settings.average) if effort.settings.average > 0 else None
        sparsity, framed, of_tails = effort.sparsity, effort.orthogonality > 0, effort.ordered > 0
        self._shrinking = None if sparsity is None else Shrinking(model, sparsity, framed=framed, of_tails=of_tails)
        self._after = AfterSteps(model, effort.settings, self._steps(effort.settings.epochs))
        apart = apart_ids(model)
        self._clipped = [parameter for parameter in model.parameters() if id(parameter) not in apart]
        self._step = 0
        self._lone = 0  # batches in a row that norms could not be trained with

    @property
    def epochs(self) -> float:
        """Epochs that are done."""
        return self._step / self._per_epoch if self._per_epoch else 0.0

    def broken(self) -> list[str]:
        """Which parameters of the model are not finite, by name."""
        return [name for name, parameter in self._model.named_parameters() if not parameter.isfinite().all()]

    def advance(self, epochs: float, after_step: AfterStep | None = None) -> Diverged | None:
        """Train until that many epochs are done in all; the model ends in eval mode."""
        last = self._steps(epochs)
        self._model.train()
        try:
            with self._teacher_kept():
                while self._step < last:
                    if diverged := self._advance_by(next(self._batches)):
                        return diverged
                    if after_step is not None:
                        after_step(self)
        finally:
            self._model.eval()
        broken = self.broken()
        return Diverged(f"{', '.join(broken)} not finite after step {self._step}") if broken else None

    def _teacher_kept(self) -> AbstractContextManager[None]:
        teacher = self._effort.teacher
        return nullcontext() if teacher is None else buffers_kept(teacher)

    def _steps(self, epochs: float) -> int:
        return math.ceil(round(epochs * self._per_epoch, 6))  # so that 0.7 of 10 batches is 7, not 8

    def _advance_by(self, batch: Batch) -> Diverged | None:
        settings, step, total = self._effort.settings, self._step, self._steps(self._effort.settings.epochs)
        set_rates(self._optimizers, self._rates, rate_factor(settings, step, total))
        loss = self._loss_of(batch, step, total)
        if loss is not None and not math.isfinite(value := float(loss.detach())):
            return Diverged(f"the loss was {value} in epoch {step // self._per_epoch + 1}, step {step + 1} of {total}")
        if loss is not None:
            self._descend(loss, is_final=steps_are_final(step, total))
        self._step += 1
        if self._average is not None:
            self._average.update(self._step)
        return None

    def _loss_of(self, batch: Batch, step: int, total: int) -> Tensor | None:
        """None for a batch with one value for each channel, as the last of a pass may be: norms take no such batch."""
        try:
            loss = self._loss.of(batch, step, total)
        except ValueError as error:
            if not is_lone(error):
                raise
            self._lone += 1
            if self._lone >= self._per_epoch:
                raise TaskError(
                    "Norms are trained with more than one example in a batch; the training data has one in each. Use "
                    "larger batches."
                ) from error
            _log.info("A batch of one example in step %d of %d: norms cannot be trained with it.", step + 1, total)
            return None
        self._lone = 0
        return loss

    def _descend(self, loss: Tensor, *, is_final: bool) -> None:
        """One step of the optimizers; then forms move what is theirs, and components lose norm or stay zero."""
        shrinking = self._shrinking
        alive = None if shrinking is None else shrinking.alive()
        _descend(self._optimizers, loss, self._clipped, self._effort.settings)
        self._after.move_(self._step)
        if shrinking is not None and alive is not None:
            shrinking.keep_(alive) if is_final else shrinking.shrink_(descent_rate(self._optimizers[0]))

    def settle(self) -> bool:
        """Put what is measured into the model: the averaged weights, if the settings ask for them.

        A component that is zero in the last weights is zero in their average, too.

        Returns whether batch norms have to take their statistics again: weights have changed, or some of the steps
        that they are from were taken without all components. The training cannot go on from there; keep it before.
        """
        if self._average is None:
            return self._effort.ordered > 0
        alive = None if self._shrinking is None else self._shrinking.alive()
        self._average.put()
        if self._shrinking is not None and alive is not None:
            self._shrinking.keep_(alive)
        return True

    def kept(self, **about: Any) -> Checkpoint:
        """This moment; its tensors are the living ones, so turn it to bytes before anything goes on."""
        entropy = self._effort.entropy
        place = {"step": self._step, "per_epoch": self._per_epoch, "taken": self._batches.taken}
        parts: dict[str, Mapping[str, Tensor]] = {
            MODEL: self._model.state_dict(),
            "quantizer": {} if entropy is None else entropy.quantizer.state_dict(),
            "optimizers": memories(self._optimizers),
            "average": {} if self._average is None else self._average.tensors,
            "generators at the pass": self._batches.began,
            "generators": generators(),
        }
        return Checkpoint(about | place, parts)

    @classmethod
    def restored(cls, task: Task, model: nn.Module, effort: FineTuning, kept: Checkpoint) -> Trainer:
        """The training at that moment, around a model that has its weights already.

        Raises:
            CheckpointError: the training data has fewer batches than then, or an older version left the checkpoint.
        """
        training = cls(task, model, effort, kept.about["per_epoch"])
        training._step = kept.about["step"]
        if effort.entropy is not None:
            _load(effort.entropy.quantizer, kept.part("quantizer"))
        set_memories(training._optimizers, kept.part("optimizers"))
        if training._average is not None:
            training._average.load(kept.part("average"))
        if kept.about["taken"] != kept.about["per_epoch"]:  # else the next batch begins a new pass
            training._batches.skip(kept.part("generators at the pass"), kept.about["taken"])
        set_generators(kept.part("generators"))
        return training


def _load(quantizer: nn.Module, kept: Mapping[str, Tensor]) -> None:
    try:
        quantizer.load_state_dict(kept)
    except RuntimeError as error:
        raise CheckpointError(
            "A checkpoint is gone on with by the version that left it; the steps in this one are another version's. "
            "Start the trial over."
        ) from error


def _descend(
    optimizers: list[Optimizer], loss: Tensor, clipped: list[nn.Parameter], settings: TrainingSettings
) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if math.isfinite(settings.gradient_clip):
        nn.utils.clip_grad_norm_(clipped, settings.gradient_clip)
    for optimizer in optimizers:
        optimizer.step()
