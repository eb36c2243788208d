"""What the loss sees of the layers: the second moment of its gradients at their outputs, and that of their inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import Example, Layer
from rank_search.tasks.calibration import input_moments, summed, wide
from rank_search.tasks.randomness import seeded
from rank_search.tasks.task import Batch, Task, task_loss, task_sampled_loss

_log: Final = logging.getLogger(__name__)

MOST_OUTPUTS: Final = 16384
"""Of a layer, of which all pairs are taken: two gigabytes."""

LossOf = Callable[[nn.Module, Any], Tensor]
"""The loss of a model on a batch: a scalar with a gradient."""


@dataclass(frozen=True)
class LayerMoments:
    """What was seen of the layers, by name.

    Attributes:
        inputs: E[x·xᵀ] of each layer's inputs, n × n with n = in·kh·kw; of one-hot inputs its diagonal.
        gradients: of the gradients g of the loss at its outputs, the sum of g·gᵀ over the positions of a batch, out ×
            out, averaged over batches; nothing where they were not asked for. Of a layer whose rows are looked up, too,
            a diagonal may stand for it (see `of_uses`).
    """

    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)


def loss_moments(
    task: Task, model: nn.Module, layers: Mapping[str, Layer], batches: int, rng_seed: int = 0, sampled: bool = False
) -> LayerMoments:
    """The moments of each layer's inputs and of the gradients at its outputs, from the same pass over the same batches.

    The inputs' are those of `input_moments`. Gradients are of the task's loss with the batch's own targets, of each
    batch as it is: the empirical Fisher information, in K-FAC's form. Or, `sampled`, with targets drawn once for each
    batch as from what the model predicts (`Task.sampled_loss`): the Fisher information itself (Martens and Grosse
    2015), which no label has a part in; its draws follow from `rng_seed`. Gradients are summed over positions, as the
    weight is used at each. A layer that no gradient reaches, or one that is not finite, is left out, with a warning; so
    is one of more than `MOST_OUTPUTS` outputs, as the head of a language model may be. Parameters get no gradients, and
    keep whether they want any. Complexity: two to three times the forwards, and O(positions·out²) for each layer; sums
    in float64.

    Raises:
        TaskError: the task raises, has no training data, its loss is no scalar with a gradient, or it cannot draw
            targets.
    """
    sums = {name: _Gradients(layer) for name, layer in layers.items() if layer.out_features <= MOST_OUTPUTS}
    led_back = _LedBack(task, batches, rng_seed if sampled else None)
    with _watched(model, sums):
        inputs = input_moments(led_back, model, layers, batches, rng_seed)
    means = {name: sums[name].mean(led_back.count) if name in sums else None for name in inputs if name in layers}
    usable = {name: mean for name, mean in means.items() if mean is not None}
    if unknown := [name for name in means if name not in usable]:
        _log.warning(
            "The loss has no usable gradient at the outputs of %s: fitted to the outputs alone.", ", ".join(unknown)
        )
    return LayerMoments(inputs, usable)


@final
@dataclass(frozen=True, eq=False)
class LossAlone(Task):
    """A model, batches, and what its loss on a batch is; nothing is measured."""

    network: nn.Module
    one_example: Example
    batches: Iterable[Batch]
    loss_function: LossOf

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Example:
        return self.one_example

    def training(self) -> Iterable[Batch]:
        return self.batches

    def selection(self) -> Iterable[Batch]:
        return self.batches

    def test(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.loss_function(model, batch)

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        return {}


class _Gradients:
    """The sum of g·gᵀ over all positions so far."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._sum: Tensor | None = None

    def watch(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        """A forward hook: see the gradient of what the layer gives, even where nothing before it has one."""
        if not torch.is_grad_enabled():
            return None
        begun = output if output.requires_grad else output.detach().requires_grad_()
        watched = begun.clone()  # what comes after may write into it
        watched.register_hook(self._add)  # type: ignore[no-untyped-call]
        return watched

    def _add(self, gradient: Tensor) -> None:
        at = gradient.movedim(self._layer.channels, -1)
        rows = wide(at.reshape(-1, at.shape[-1]))
        self._sum = summed(self._sum, rows.T @ rows)

    def mean(self, batches: int) -> Tensor | None:
        """None where no gradient came, nothing but zeros, or one that is not finite."""
        if self._sum is None or not bool(self._sum.isfinite().all()) or not bool(self._sum.any()):
            return None
        return (self._sum / batches).to(torch.float32)


@final
class _LedBack(Task):
    """A task whose loss, on the first batches, is led back to the layers' outputs; `count` says on how many.

    Args:
        rng_seed: that targets are drawn by; None: those of the batches.
    """

    def __init__(self, task: Task, batches: int, rng_seed: int | None) -> None:
        self._task, self._batches, self._rng_seed, self.count = task, batches, rng_seed, 0

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if self.count >= self._batches:
            return self._loss(model, batch)
        self.count += 1
        with torch.enable_grad():
            loss = self._loss(model, batch)
            if not loss.requires_grad:
                raise TaskError(
                    "The loss does not depend on what any layer gives, so it says nothing of them. It is a scalar with "
                    'a gradient; correct it, or leave errors to the outputs ([priors] metric = "outputs").'
                )
            torch.autograd.backward(loss)
        return loss.detach()

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if self._rng_seed is None:
            return task_loss(self._task, model, batch)
        with seeded(self._rng_seed + self.count):  # whatever is drawn, the batches are those of a plain pass
            return task_sampled_loss(self._task, model, batch)

    def mask(self, batch: Batch) -> Tensor | None:
        return self._task.mask(batch)

    def model(self) -> nn.Module:
        return self._task.model()

    def example(self) -> Example:
        return self._task.example()

    def training(self) -> Iterable[Batch]:
        return self._task.training()

    def selection(self) -> Iterable[Batch]:
        return self._task.selection()

    def test(self) -> Iterable[Batch] | None:
        return self._task.test()

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        return self._task.evaluate(model, batches)


@contextmanager
def _watched(model: nn.Module, sums: Mapping[str, _Gradients]) -> Iterator[None]:
    """Each of these layers watched, and no parameter asking for a gradient of its own."""
    wanting = [each for each in model.parameters() if each.requires_grad]
    with ExitStack() as stack:
        for parameter in wanting:
            parameter.requires_grad_(False)
            stack.callback(parameter.requires_grad_, True)
        for name, each in sums.items():
            stack.callback(model.get_submodule(name).register_forward_hook(each.watch).remove)
        yield
