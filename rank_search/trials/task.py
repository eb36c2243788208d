"""Step 2 of the data path: the user's model, data, loss and metric, as a `Task`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import RankSearchError, TaskError
from rank_search.layers import Example

Batch = Any
"""Whatever a task's iterables yield; only the task itself looks inside."""

MEASURED_HERE: Final = ("params", "macs", "bits", "latency")
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
        """What one forward takes: one example, as a batch of 1 (a tensor, or a tuple of tensors)."""

    @abstractmethod
    def training(self) -> Iterable[Batch]:
        """One epoch of batches. Shuffle by torch's global generator: a trial seeds it."""

    @abstractmethod
    def selection(self) -> Iterable[Batch]:
        """The batches that the search is measured on."""

    @abstractmethod
    def test(self) -> Iterable[Batch]:
        """The batches kept for the end."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of the model on one batch: a scalar with a gradient."""

    @abstractmethod
    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Named numbers measured on the batches, e.g. `{"error": 0.02}`.

        Called with the model in eval mode and gradients off.
        """


def error_rate(outputs: Tensor, targets: Tensor) -> float:
    """Share of wrong answers, the class being the last dimension's maximum (the first one on ties).

    >>> error_rate(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
    0.5
    """
    return float((outputs.argmax(-1) != targets).double().mean())


@final
@dataclass(frozen=True, eq=False)
class Supervised(Task):
    """A task made of plain objects: a model, three loaders of (input, target) pairs, and a metric.

    Attributes:
        network: the trained model.
        training_batches, selection_batches, test_batches: loaders; anything that can be iterated again and
            again and yields pairs of an input and a target.
        loss_function: of the model's outputs and the targets, for fine-tuning.
        metric: of all outputs and all targets of a pass, concatenated.
        metric_name: the name of that measurement; `"error"` is minimized by default.
    """

    network: nn.Module
    training_batches: Iterable[Batch]
    selection_batches: Iterable[Batch]
    test_batches: Iterable[Batch]
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    metric: Callable[[Tensor, Tensor], float] = error_rate
    metric_name: str = "error"

    def __post_init__(self) -> None:
        """Refuse what cannot work in any trial.

        Raises:
            TaskError: the network is no module, or a loader cannot be iterated more than once.
        """
        if not isinstance(self.network, nn.Module):
            raise TaskError(f"A task's network is an nn.Module; found {type(self.network).__name__}. Pass one.")
        for name in ("training_batches", "selection_batches", "test_batches"):
            _check_loader(name, getattr(self, name))

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Tensor:
        inputs, _ = _pair(next(passed(self.selection_batches, "selection_batches")))
        return inputs[:1]

    def training(self) -> Iterable[Batch]:
        return self.training_batches

    def selection(self) -> Iterable[Batch]:
        return self.selection_batches

    def test(self) -> Iterable[Batch]:
        return self.test_batches

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = _pair(batch)
        return self.loss_function(model(inputs), targets)

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        pairs = [_pair(batch) for batch in batches]
        outputs = torch.cat([model(inputs) for inputs, _ in pairs])
        return {self.metric_name: self.metric(outputs, torch.cat([targets for _, targets in pairs]))}


def _check_loader(name: str, loader: object) -> None:
    if not isinstance(loader, Iterable):
        raise TaskError(f"{name} is iterated for batches; found {type(loader).__name__}. Pass a DataLoader or a list.")
    if isinstance(loader, Iterator):
        raise TaskError(
            f"{name} is iterated once for every epoch of every trial; {type(loader).__name__} can be iterated "
            "only once. Pass a DataLoader or a list of batches."
        )


def _pair(batch: Batch) -> tuple[Tensor, Tensor]:
    if isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        return batch[0], batch[1]
    found = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
    raise TaskError(
        f"A loader yields pairs of tensors (input, target); found a {found}. "
        "For other batches write a class derived from rank_search.Task."
    )


# ---- what the trials call: the task's own answers, checked ---------------------------------------------


@contextmanager
def asked(what: str) -> Iterator[None]:
    """Whatever the task raises when it is asked for this, as an error that says so.

    Raises:
        TaskError: instead of anything that is not an error of ours already.
    """
    try:
        yield
    except RankSearchError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise TaskError(f"The task's {what} raised {type(error).__name__}: {said}. Correct the task.") from error


def passed(batches: Iterable[Batch], name: str) -> Iterator[Batch]:
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
            f"Each pass over the data yields at least one batch; {name} yielded none. Is the data set empty, or "
            "an iterator that was used up by the pass before?"
        )


def task_loss(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """The task's loss of one batch.

    Raises:
        TaskError: it is not a scalar tensor.
    """
    loss = task.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(f"A task's loss is one number as a tensor; found {found}. Average it over the batch.")
    return loss.reshape(())


def task_measurements(task: Task, model: nn.Module, batches: Iterable[Batch], name: str) -> dict[str, float]:
    """The task's measurements on one pass, as plain numbers; NaN and infinity are handed on.

    Raises:
        TaskError: not a mapping of names to numbers, no number at all, or a name that every trial measures.
    """
    with torch.no_grad():
        found = task.evaluate(model, passed(batches, name))
    if not isinstance(found, Mapping) or not found:
        raise TaskError(f"evaluate gives named numbers such as {{'error': 0.02}}; found {found!r} on {name}.")
    if taken := sorted(set(found) & set(MEASURED_HERE)):
        raise TaskError(f"{', '.join(taken)} is measured for every trial; evaluate must use another name.")
    return {key: _number(key, value) for key, value in found.items()}


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise TaskError(f"The measurement {name!r} is one number; found {type(value).__name__} {value!r}.") from None


def not_finite(measurements: Mapping[str, float]) -> list[str]:
    """Names of the measurements that are NaN or infinite, sorted."""
    return sorted(name for name, value in measurements.items() if not math.isfinite(value))
