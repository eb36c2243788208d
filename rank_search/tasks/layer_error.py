"""A network without any input: its layers' own errors are what it is measured by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Final, NoReturn, final

import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import (
    Example,
    Factorization,
    Layer,
    layer_in,
    opened_inventory,
    output_error,
    weight_in,
    weight_of,
)
from rank_search.tasks.lent_batches import Tested
from rank_search.tasks.task import Batch, Task

LAYER_ERROR: Final = "layer_error"
"""Name of what is measured."""

WORST_LAYER_ERROR: Final = 0.5
"""The worst worth having, for each layer on average, where nothing else is asked for."""

Moments = Callable[[Mapping[str, Layer]], Mapping[str, Tensor]]
"""What is known of the layers' inputs: their second moments, by layer."""


def _nothing(layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
    return {}


@final
@dataclass(frozen=True, eq=False)
class LayerErrorTask(Task):
    """A network of which nothing is run: a model is measured by `layer_error`, the sum of its layers' relative errors.

    Of a layer with the weight W, which has become Ŵ, the error is tr((W − Ŵ)·C·(W − Ŵ)ᵀ)/tr(W·C·Wᵀ), with the second
    moment C of its inputs where that is known, and the identity where it is not: then it is ‖W − Ŵ‖²/‖W‖². It is
    minimized, 0 for the dense model, and about 1 for each layer that is driven to nothing. What errors in one layer do
    to the next it does not say, nor what they do to the outputs. There is no loss, and so no training.

    Attributes:
        network: the trained model.
        one_example: what one forward takes.
        moments: of the layers' inputs, worked out without any.
        made_up: in words, what the moments are; empty: there are none.
        layers: whose errors are summed; none: all that can be factorized.
        measured_at_the_end: the task whose test data the front's members are measured on.
    """

    network: nn.Module
    one_example: Example
    moments: Moments = _nothing
    made_up: str = ""
    layers: Mapping[str, Layer] = field(default_factory=dict, repr=False)
    measured_at_the_end: Task | None = None

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Example:
        return self.one_example

    def training(self) -> Iterable[Batch]:
        return ()

    def selection(self) -> Iterable[Batch]:
        return (None,)

    def test(self) -> Iterable[Batch] | None:
        found = None if self.measured_at_the_end is None else self.measured_at_the_end.test()
        return None if found is None else map(Tested, found)

    def keeps_statistics(self) -> bool:
        return True

    @cached_property
    def known_moments(self) -> Mapping[str, Tensor]:
        """Of the layers' inputs, by layer, where the weights are; worked out once."""
        found = self.moments(self._summed)
        return {name: each.to(weight_of(self.network, name).device) for name, each in found.items()}

    def meanings(self) -> Mapping[str, str]:
        by = f"of their outputs by {self.made_up}" if self.made_up else "of their weights, ‖W − Ŵ‖²/‖W‖²"
        return {LAYER_ERROR: f"sum over the layers of the relative squared errors {by}; no input is run"}

    def selection_examples(self) -> int | None:
        return None

    def loss(self, model: nn.Module, batch: Batch) -> NoReturn:
        raise TaskError(
            "Without inputs there is no loss: nothing is trained, and nothing is rounded by the loss. Set [training] "
            'epochs = 0, or take a source of inputs ([data] source = "synthetic" or "gaussian").'
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        found = {LAYER_ERROR: sum((self._error(model, name) for name in self._summed), 0.0)}
        given = iter(batches)
        first = next(given)
        if not isinstance(first, Tested) or self.measured_at_the_end is None:
            return found
        return {**self.measured_at_the_end.evaluate(model, (each.batch for each in chain([first], given))), **found}

    @cached_property
    def _summed(self) -> Mapping[str, Layer]:
        return self.layers or opened_inventory(self.network, self.one_example).layers

    def _error(self, model: nn.Module, name: str) -> float:
        """Of a layer of the model, relative to that of a layer of zeros."""
        weight, module = weight_of(self.network, name), layer_in(model, name)
        other = module.dense() if isinstance(module, Factorization) else weight_in(module)
        if torch.equal(weight, other):
            return 0.0
        moment = self.known_moments.get(name)
        whole = output_error(weight, torch.zeros_like(weight), moment)
        return output_error(weight, other, moment) / whole if whole else math.inf
