"""Step 2 of the data path: the user's model, data, loss and metric, as a `Task`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from typing import Any, Final

import torch
from torch import Tensor, nn

from rank_search.basics import attributing
from rank_search.errors import TaskError
from rank_search.layers import Example, buffers_kept
from rank_search.tasks.batch_inputs import inputs_in
from rank_search.tasks.randomness import seeded

Batch = Any
"""What a task's iterables yield; only the task itself looks inside."""

MEASURED_HERE: Final = ("params", "macs", "bits", "bits_per_sample", "nonzeros", "latency", "latency_ratio")
"""Measurements that every trial has; a task must not use these names."""


class Task(ABC):
    """A trained model, its data in three parts, the loss it is fine-tuned with, and what is measured on it.

    The data is split three ways: `training` to fine-tune on, `selection` for what the search sees, `test` for
    what is reported of the front's members and never seen by the search. Each call gives a fresh pass.
    """

    @abstractmethod
    def model(self) -> nn.Module:
        """The trained dense model."""

    @abstractmethod
    def example(self) -> Example:
        """What one forward takes: one example, as a batch of 1.

        A tuple is what the model is called with by position, a dictionary (such as a collator gives) by name; anything
        else is its one argument. Tensors may stand in dictionaries, lists, tuples and dataclasses inside. What is
        exported is called in the same way.
        """

    @abstractmethod
    def training(self) -> Iterable[Batch]:
        """One epoch of batches. Shuffle by torch's global generator: a trial seeds it."""

    @abstractmethod
    def selection(self) -> Iterable[Batch]:
        """The batches that the search is measured on."""

    @abstractmethod
    def test(self) -> Iterable[Batch] | None:
        """The batches kept for the end; None if there are none: then nothing is reported on test data."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of the model on one batch: a scalar with a gradient.

        Called with the model in training mode, always: what it gives in that mode alone (the outputs of auxiliary
        heads, say) is there. Where nothing is trained (the inputs of layers, the statistics of batch norms and the
        rounding of weights are looked at through the loss, too), dropout is off, and norms keep what they have.
        """

    @abstractmethod
    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Named numbers measured on the batches, e.g. `{"error": 0.02}`.

        Called with the model in eval mode and gradients off.
        """

    def selection_examples(self) -> int | None:
        """How many independent examples the selection data has, for the error bars of rates; None: they are counted.

        May be written where a batch is no pair of inputs and targets with the examples along the first dimension.
        """
        return None

    def examples(self) -> Sequence[Example]:
        """Several examples, each as a batch of 1, the first being `example()`; default: that alone.

        May be written, for a model whose work depends on what it is given (experts, early exits): where the examples
        differ in what they run, MACs are the mean of them all. Of one example they are those of its path through
        the model. They are the same in every process.
        """
        return (self.example(),)

    def inputs(self, batch: Batch) -> Example:
        """What the model is called with on a batch, without targets; default: what it begins with, as the example is.

        May be written, for batches of another form: without labels (`[data]`), for continuous ranks and for importances
        nothing but the inputs is looked at.

        Raises:
            TaskError: a batch does not begin with inputs.
        """
        return inputs_in(batch, self.example())

    def keeps_statistics(self) -> bool:
        """Whether batch norms keep the dense model's statistics, as the training data has none to teach.

        May be written, for training data that is made up: statistics that are taken again on it are wrong ones.
        """
        return False

    def meanings(self) -> Mapping[str, str]:
        """What its measurements are, in words, by name; a study keeps them, and its front and report say them.

        May be written, for measurements whose name does not say it all.
        """
        return {}

    def signal_samples(self) -> int | None:
        """How many samples (pixels, times) the one signal has that the model stands for; None: it answers on data.

        May be written, for a representation (see `rank_search.Representation`). Then trials measure `bits_per_sample`,
        and the store says that the whole signal is what is trained on, selected by and reported of.
        """
        return None

    def reference_curves(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """Measurements that others reach on the same data, by name, in order; asked for once, when a study begins.

        May be written: the report draws each as a curve beside the front.
        """
        return {}

    def mask(self, batch: Batch) -> Tensor | None:
        """Which positions of a batch are inputs, batch × length: zero or false where they are padding.

        May be written, for a model whose padding is not told by an input `attention_mask`, which is looked at where
        this is None: what layers see at padded positions plays no part in how they are fitted.
        """
        return None

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        """(1 − share) · loss + share · distance between the outputs of the model and of the teacher.

        May be written, for `[training] distillation`; `teacher_distance` is there to help. One forward of the model is
        enough for both terms.

        Args:
            teacher: the dense model in eval mode; call it without gradients.
            temperature: what outputs are divided by before they are compared.

        Raises:
            TaskError: not written.
        """
        raise TaskError(
            f"{type(self).__name__} does not say how its models are distilled. Write its method distilled_loss (see "
            "rank_search.Task), or leave out [training] distillation."
        )

    def sampled_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss with targets drawn from the model's own predictions, by torch's global generator; one forward.

        May be written, for `[priors] targets = "sampled"`: −ln p of a draw for each prediction, averaged as `loss` is.
        Draws have no gradient, and labels play no part.

        Raises:
            TaskError: not written, or the outputs are not known as a distribution.
        """
        raise TaskError(
            f"{type(self).__name__} does not say what its models' predictions are drawn from. Write its method "
            'sampled_loss (see rank_search.Task), or leave [priors] targets at "labels".'
        )


# ---- what the trials call: the task's own answers, checked ---------------------------------------------


def has_test(task: Task) -> bool:
    """Whether there is test data: `test()` gives something, and not nothing but an empty pass.

    Raises:
        TaskError: the task raises.
    """
    with seeded(0), task_errors("test()"):
        batches = task.test()
        return batches is not None and any(True for _ in batches)


def has_training(task: Task) -> bool:
    """Whether there is training data: `training()` gives a batch.

    Raises:
        TaskError: the task raises.
    """
    with seeded(0), task_errors("training()"):
        return any(True for _ in task.training())


def task_errors(what: str) -> AbstractContextManager[None]:
    """What the task raises inside becomes a `TaskError` that names the method."""
    return attributing(TaskError, f"The task's {what}", "Correct the task.")


def known_count(batches: Iterable[Batch]) -> int:
    """How many batches a pass says that it has; 0 where it does not know, as a DataLoader over a stream."""
    try:
        return len(batches) if isinstance(batches, Sized) else 0
    except TypeError:
        return 0


def checked_batches(batches: Iterable[Batch], name: str) -> Iterator[Batch]:
    """One pass over the batches.

    Raises:
        TaskError: there is none.
    """
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise TaskError(
            f"The {name} yielded no batch; each pass over the data must yield one. Is the data set empty, or "
            "an iterator that was used up by the pass before?"
        )


def task_loss(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """The task's loss of one batch.

    Raises:
        TaskError: it is not a scalar tensor.
    """
    return _one_number(task.loss(model, batch))


def task_distilled_loss(
    task: Task, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
) -> Tensor:
    """The task's loss of one batch with its share of distillation.

    Raises:
        TaskError: it is not a scalar tensor, or the task does not say how.
    """
    return _one_number(task.distilled_loss(model, teacher, batch, share, temperature))


def task_sampled_loss(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """The task's loss of one batch with targets drawn from the model's predictions.

    Raises:
        TaskError: the task raises, it is not a scalar tensor, or the task does not say how.
    """
    with task_errors("sampled_loss()"):
        return _one_number(task.sampled_loss(model, batch))


def _one_number(loss: object) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(f"The task's loss is {found}; it must be one number as a tensor. Average it over the batch.")
    return loss.reshape(())


def task_measurements(task: Task, model: nn.Module, batches: Iterable[Batch], name: str) -> dict[str, float]:
    """The task's measurements on one pass, as plain numbers; NaN and infinity are handed on. The model is not changed.

    Raises:
        TaskError: not a mapping of names to numbers, no number at all, or a name that every trial measures.
    """
    with torch.no_grad(), buffers_kept(model):
        found = task.evaluate(model, checked_batches(batches, name))
    if not isinstance(found, Mapping) or not found:
        raise TaskError(f"evaluate gave {found!r} on {name}; it must give named numbers, such as {{'error': 0.02}}.")
    if taken := sorted(set(found) & set(MEASURED_HERE)):
        raise TaskError(f"evaluate gave {', '.join(taken)}, which is measured for every trial. Use another name.")
    return {key: _number(key, value) for key, value in found.items()}


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise TaskError(
            f"The measurement {name!r} is {type(value).__name__} {value!r}; it must be one number."
        ) from None


def not_finite(measurements: Mapping[str, float]) -> list[str]:
    """Names of the measurements that are NaN or infinite, sorted."""
    return sorted(name for name, value in measurements.items() if not math.isfinite(value))
