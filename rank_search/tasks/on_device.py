"""A task on a device that it need not know of."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import Example, copied_to, with_leaves
from rank_search.tasks.agreement import AgreementTask
from rank_search.tasks.layer_error import LayerErrorTask
from rank_search.tasks.task import Batch, Task, known_count

_OF_TWO_DEVICES: Final = ("same device", "should be the same")
"""How PyTorch says, of operations in general and of convolutions, that tensors are not on one device."""


def on_device(task: Task, device: torch.device) -> Task:
    """The same task with its model, and all that its passes yield, on a device; the task itself stays as it is.

    What it computes with besides goes along where it is in modules that the task has as attributes, such as a teacher,
    or a loss with weights of the classes.
    """
    if isinstance(task, OnDevice):
        return on_device(task.task, device)
    if isinstance(task, AgreementTask):
        return _agreement_on(task, device)
    if isinstance(task, LayerErrorTask):
        return _layer_error_on(task, device)
    return OnDevice(_with_modules_on(task, device), device)


def without_device(task: Task) -> Task:
    """The task as it was before it was put on a device."""
    return task.task if isinstance(task, OnDevice) else task


def to_device(value: Any, device: torch.device) -> Any:
    """A batch or an example with all that is inside on a device: tensors, and whatever else has a method `to`.

    >>> to_device({"ids": torch.ones(2), "name": "first"}, torch.device("meta"))
    {'ids': tensor(..., device='meta', size=(2,)), 'name': 'first'}
    """
    return with_leaves(value, lambda each: callable(getattr(each, "to", None)), lambda each: each.to(device))


@final
@dataclass(frozen=True, eq=False)
class OnDevice(Task):
    """A task whose model, examples and batches are moved to a device when they are asked for."""

    task: Task
    device: torch.device

    @cached_property
    def _network(self) -> nn.Module:
        found = self.task.model()
        return copied_to(found, self.device) if isinstance(found, nn.Module) else found

    def model(self) -> nn.Module:
        return self._network

    def example(self) -> Example:
        return to_device(self.task.example(), self.device)

    def examples(self) -> Sequence[Example]:
        return [to_device(each, self.device) for each in self.task.examples()]

    def training(self) -> Iterable[Batch]:
        return _moved(self.task.training(), self.device)

    def selection(self) -> Iterable[Batch]:
        return _moved(self.task.selection(), self.device)

    def test(self) -> Iterable[Batch] | None:
        found = self.task.test()
        return None if found is None else _moved(found, self.device)

    def inputs(self, batch: Batch) -> Example:
        return to_device(self.task.inputs(batch), self.device)

    def mask(self, batch: Batch) -> Tensor | None:
        return self.task.mask(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        with self._one_device("loss()"):
            return self.task.loss(model, batch)

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        with self._one_device("distilled_loss()"):
            return self.task.distilled_loss(model, teacher, batch, share, temperature)

    def sampled_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        with self._one_device("sampled_loss()"):
            return self.task.sampled_loss(model, batch)

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        with self._one_device("evaluate()"):
            return self.task.evaluate(model, batches)

    def selection_examples(self) -> int | None:
        return self.task.selection_examples()

    def keeps_statistics(self) -> bool:
        return self.task.keeps_statistics()

    def meanings(self) -> Mapping[str, str]:
        return self.task.meanings()

    def signal_samples(self) -> int | None:
        return self.task.signal_samples()

    def reference_curves(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        return self.task.reference_curves()

    @contextmanager
    def _one_device(self, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not any(said in str(error) for said in _OF_TWO_DEVICES):
                raise
            raise TaskError(
                f"The task's {what} computes with tensors of two devices: {error}. Model and batches are on "
                f"{self.device} ([launch] device); tensors that it makes itself have to be made there "
                "(device=outputs.device), and constants kept in a module that the task has as an attribute. Or set "
                '[launch] device = "cpu".'
            ) from error


def _agreement_on(task: AgreementTask, device: torch.device) -> AgreementTask:
    tested, test = task.measured_at_the_end, task.test_batches
    return replace(
        task,
        network=copied_to(task.network, device),
        training_batches=_moved(task.training_batches, device),
        selection_batches=_moved(task.selection_batches, device),
        test_batches=None if test is None else _moved(test, device),
        one_example=to_device(task.one_example, device),
        measured_at_the_end=None if tested is None else on_device(tested, device),
    )


def _layer_error_on(task: LayerErrorTask, device: torch.device) -> LayerErrorTask:
    tested = task.measured_at_the_end
    return replace(
        task,
        network=copied_to(task.network, device),
        one_example=to_device(task.one_example, device),
        measured_at_the_end=None if tested is None else on_device(tested, device),
    )


def _with_modules_on(task: Task, device: torch.device) -> Task:
    """The task with the modules that are its attributes on a device; of tensors that they share there is one."""
    modules = {name: each for name, each in vars(task).items() if isinstance(each, nn.Module)}
    copies = copied_to(nn.ModuleList(modules.values()), device)
    made = copy.copy(task)
    for name, each in zip(modules, copies, strict=True):
        object.__setattr__(made, name, each)
    return made


# ---- passes over batches ---------------------------------------------------------------------------------


def _moved(batches: Iterable[Batch], device: torch.device) -> Iterable[Batch]:
    return _CountedPass(batches, device) if known_count(batches) else _Pass(batches, device)


@final
@dataclass(frozen=True)
class _Pass:
    """Batches that are moved when they are asked for."""

    batches: Iterable[Batch]
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        return (to_device(batch, self.device) for batch in self.batches)


@final
@dataclass(frozen=True)
class _CountedPass:
    """The same, of batches that know their number."""

    batches: Any
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        return iter(_Pass(self.batches, self.device))

    def __len__(self) -> int:
        return len(self.batches)
