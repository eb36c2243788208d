"""A task made of plain objects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import Example, forward, tensors_of, with_tensors
from rank_search.tasks.batch import batch_dimension
from rank_search.tasks.drawn_targets import drawn_loss
from rank_search.tasks.logits import logits_of
from rank_search.tasks.task import Batch, Task, checked_batches

_COUNTS: Final = (1, 2, 4, 8)
"""Of examples; means of that many whole numbers have no rounding."""

_LABELS: Final = "labels"
"""Of a dictionary, as Hugging Face's collators name them."""

_log = logging.getLogger(__name__)


def teacher_distance(outputs: Tensor, aims: Tensor, temperature: float) -> Tensor:
    """KL(softmax(z/T) ‖ softmax(y/T)) · T², averaged over all but the last dimension.

    Symbols: y, `outputs` … × c, of the model; z, `aims`, of its teacher; c classes; T the temperature. Formula:
    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2; T² keeps the gradient's
    size as T grows. Computed in float32 or wider. Equal outputs give 0, as does c = 1; no outputs, or NaN, give NaN.
    O(n), n outputs.

    >>> float(teacher_distance(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1000.0]), 1.0))  # ln 2
    0.6931471824645996
    """
    wide = torch.promote_types(outputs.dtype, torch.float32)
    ours = F.log_softmax(outputs.to(wide) / temperature, -1)
    theirs = F.log_softmax(aims.to(wide) / temperature, -1)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1).mean() * temperature**2


def error_rate(outputs: Tensor, targets: Tensor) -> float:
    """Share of wrong answers, the class being the last dimension's maximum (the first one on ties).

    >>> error_rate(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
    0.5
    """
    return float((outputs.argmax(-1) != targets).double().mean())


@final
@dataclass(frozen=True, eq=False)
class Supervised(Task):
    """A task made of plain objects: a model, three loaders of (inputs, targets) pairs, and a metric.

    Inputs are what the model's forward takes: a tensor, a tuple by position, or a dictionary by name. A batch that is
    a dictionary has its targets under `labels`. Of outputs with names the `logits` are what is compared.

    Attributes:
        network: the trained model.
        training_batches, selection_batches, test_batches: loaders; anything that can be iterated again and
            again and yields pairs of inputs and targets. Without test batches nothing is reported on test data.
        loss_function: of the model's outputs and the targets, for fine-tuning.
        metric: of all outputs and all targets of a pass, concatenated.
        metric_name: the name of that measurement; `"error"` is minimized by default.
        one_example: what one forward takes; None: examples are cut from the first selection batch, along its first
            dimension, or along the second if the network takes time first.
    """

    network: nn.Module
    training_batches: Iterable[Batch]
    selection_batches: Iterable[Batch]
    test_batches: Iterable[Batch] | None = None
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    metric: Callable[[Tensor, Tensor], float] = error_rate
    metric_name: str = "error"
    one_example: Example | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work in any trial.

        Raises:
            TaskError: the network is no module, or a loader cannot be iterated more than once.
        """
        if not isinstance(self.network, nn.Module):
            raise TaskError(f"The task's network is {type(self.network).__name__}; pass an nn.Module.")
        for name in ("training_batches", "selection_batches", "test_batches"):
            if (loader := getattr(self, name)) is not None or name != "test_batches":
                _check_loader(name, loader)

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Example:
        return self.examples()[0]

    def examples(self) -> tuple[Example, ...]:
        if self.one_example is not None:
            return (self.one_example,)
        inputs, _ = _pair(next(checked_batches(self.selection_batches, "selection_batches")))
        along = self._batch_dimension
        count = tensors_of(inputs)[0].shape[along]
        there = [each for each in _COUNTS if each <= count]
        return tuple(_cut(inputs, along, number, count) for number in range(max(there, default=0)))

    @cached_property
    def _batch_dimension(self) -> int:
        inputs, _ = _pair(next(checked_batches(self.selection_batches, "selection_batches")))
        found = batch_dimension(self.network, inputs) if isinstance(inputs, Tensor) else 0
        if found:
            _log.warning(
                "The network takes time first, so an example is inputs[:, :1] of the first selection batch: one of %d "
                "sequences, all %d steps of it. Say otherwise with example= (of Supervised: one_example=).",
                inputs.shape[1],
                inputs.shape[0],
            )
        return found

    def training(self) -> Iterable[Batch]:
        return self.training_batches

    def selection(self) -> Iterable[Batch]:
        return self.selection_batches

    def test(self) -> Iterable[Batch] | None:
        return self.test_batches

    def selection_examples(self) -> int | None:
        targets = [_pair(batch)[1] for batch in self.selection_batches]
        return sum(map(len, targets)) if all(each.dim() for each in targets) else None

    def inputs(self, batch: Batch) -> Example:
        return _pair(batch)[0]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = _pair(batch)
        return self.loss_function(_outputs(model, inputs), targets)

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        inputs, targets = _pair(batch)
        outputs = _outputs(model, inputs)
        with torch.no_grad():
            aims = _outputs(teacher, inputs)
        _check_classes(outputs)
        return (1 - share) * self.loss_function(outputs, targets) + share * teacher_distance(outputs, aims, temperature)

    def sampled_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = _pair(batch)
        outputs = _outputs(model, inputs)
        found = drawn_loss(outputs, targets, self.loss_function) if isinstance(outputs, Tensor) else None
        if found is None:
            raise TaskError(_undrawn(outputs, targets))
        return found

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        pairs = [_pair(batch) for batch in batches]
        outputs = torch.cat([_outputs(model, inputs) for inputs, _ in pairs])
        return {self.metric_name: self.metric(outputs, torch.cat([targets for _, targets in pairs]))}


def _cut(inputs: Example, along: int, number: int, count: int) -> Example:
    """One example of a batch, of whatever is as long there as the batch."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor.narrow(along, number, 1) if tensor.dim() > along and tensor.shape[along] == count else tensor

    return with_tensors(inputs, cut)


def _check_loader(name: str, loader: object) -> None:
    if not isinstance(loader, Iterable):
        raise TaskError(f"{name} is {type(loader).__name__}, which yields no batches. Pass a DataLoader or a list.")
    if isinstance(loader, Iterator):
        raise TaskError(
            f"{name} is {type(loader).__name__}, which can be iterated only once; it is iterated for every epoch of "
            "every trial. Pass a DataLoader or a list of batches."
        )


def _pair(batch: Batch) -> tuple[Example, Tensor]:
    if isinstance(batch, Mapping) and isinstance(batch.get(_LABELS), Tensor) and len(batch) > 1:
        return {name: each for name, each in batch.items() if name != _LABELS}, batch[_LABELS]
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor) and tensors_of(batch[0]):
        return batch[0], batch[1]
    raise TaskError(
        f"A loader yielded a {_found(batch)}; pairs of tensors (input, target) are expected, or dictionaries with "
        f"{_LABELS!r}. For other batches write a class derived from rank_search.Task."
    )


def _found(batch: Batch) -> str:
    if isinstance(batch, Mapping):
        return f"{type(batch).__name__} of {', '.join(map(str, batch)) or 'nothing'}"
    return f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__


def _outputs(model: nn.Module, inputs: Example) -> Any:
    return logits_of(forward(model, inputs))


def _undrawn(outputs: object, targets: Tensor) -> str:
    found = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"type {type(outputs).__name__}"
    return (
        f"Outputs of {found} with targets of {targets.dtype} and shape {tuple(targets.shape)} are not known as a "
        "distribution to draw targets from. Known are classes as whole numbers, along the one dimension that targets "
        "lack, and the losses cross_entropy, mse_loss and binary_cross_entropy_with_logits of torch.nn.functional "
        "themselves. For others write a class derived from rank_search.Task with its own sampled_loss, or leave "
        '[priors] targets at "labels".'
    )


def _check_classes(outputs: object) -> None:
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or outputs.shape[-1] < 2:
        found = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TaskError(
            f"The outputs are {found}; distillation compares classes in their last dimension. For other outputs "
            "write a class derived from rank_search.Task with its own distilled_loss, or leave out [training] "
            "distillation."
        )
