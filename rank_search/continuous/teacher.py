"""How far a network's outputs are from the dense model's on some batches; no label is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import Example, forward, in_evaluation, tensors_of
from rank_search.quantization import learning_norms
from rank_search.tasks import is_lone, logits_of, relative_error, teacher_distance

Distance = Literal["kl", "squared"]
"""Of outputs: KL(softmax z ‖ softmax y) for logits along the last dimension, or ‖y − z‖² / ‖z‖² for any."""


@final
@dataclass(frozen=True, eq=False)
class Teacher:
    """The dense model's outputs on batches of inputs.

    Attributes:
        inputs: the batches.
        aims: what the dense model gives for each of them.
        distance: how outputs are compared.
    """

    inputs: tuple[Example, ...]
    aims: tuple[Any, ...]
    distance: Distance

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, batches: Iterable[Example], distance: Distance) -> Teacher:
        """Run the dense model, in evaluation mode, on all batches.

        Raises:
            TaskError: there is none, or the outputs are not of the kind that this distance compares.
        """
        inputs = tuple(batches)
        if not inputs:
            raise TaskError(
                "Continuous ranks are moved by the network's outputs, and there are no batches to see them on. Hand "
                "some over; no label is looked at."
            )
        with in_evaluation(model):
            aims = tuple(logits_of(forward(model, each)) for each in inputs)
        for each in aims if distance == "kl" else ():
            if not isinstance(each, Tensor) or each.dim() == 0 or each.shape[-1] < 2:
                found = f"a tensor of shape {tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
                raise TaskError(
                    f'The outputs are {found}; the distance "kl" compares logits in their last dimension. Take '
                    '"squared".'
                )
        return cls(inputs, aims, distance)

    def loss(self, model: nn.Module, number: int) -> Tensor:
        """The distance on the batch of that number, modulo how many there are; with a gradient.

        Raises:
            TaskError: a batch norm is to take the statistics of a batch of one example.
        """
        place = number % len(self.inputs)
        try:
            outputs = logits_of(forward(model, self.inputs[place]))
        except ValueError as error:
            if not is_lone(error):
                raise
            raise TaskError(
                "A batch has one example, and batch norms take their statistics on it. Hand over larger batches."
            ) from None
        if self.distance == "kl":
            return teacher_distance(outputs, self.aims[place], 1.0)
        return relative_error(_numbers(outputs), _numbers(self.aims[place]))

    @torch.no_grad()
    def mean(self, model: nn.Module) -> float:
        """The mean distance over all batches."""
        return sum(float(self.loss(model, number)) for number in range(len(self.inputs))) / len(self.inputs)


def _numbers(outputs: Any) -> list[Tensor]:
    """The tensors of an output that are compared."""
    return [each for each in tensors_of(outputs) if each.is_floating_point()]


@contextmanager
def on_batch_statistics(model: nn.Module, taken: bool) -> Iterator[None]:
    """The model in evaluation mode; if `taken`, batch norms use the statistics of each batch and keep none.

    As they would be re-estimated after the layers have changed. Those that are frozen stay as they are.
    """
    norms = learning_norms(model) if taken else []
    momenta = [norm.momentum for norm in norms]
    with in_evaluation(model):
        try:
            for norm in norms:
                norm.training, norm.momentum = True, 0.0
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.training, norm.momentum = False, momentum
