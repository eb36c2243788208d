"""What the layers of the dense model see: the second moment of their inputs on some batches of the training data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.layers import Layer
from rank_search.trials.randomness import seeded
from rank_search.trials.task import Task, asked, passed

MOST_PATCHES: Final = 8192
"""Of a layer, from one batch: neighboring patches say nearly the same."""


def input_moments(
    task: Task, model: nn.Module, layers: Mapping[str, Layer], batches: int, rng_seed: int = 0
) -> dict[str, Tensor]:
    """E[x·xᵀ] of each layer's inputs, x a patch in the order in · kh · kw, on the first batches of a training pass.

    Returned n × n with n = in·kh·kw, in float32, by layer name. A layer that runs several times in a forward has the
    average over all of its inputs. The model runs in evaluation mode and is not changed; torch's global generator is at
    `rng_seed` meanwhile, so that a shuffled pass is the same each time. Of a batch, a layer takes at most
    `MOST_PATCHES` patches: those of its first examples. Complexity: the forwards, and O(patches·n²) for each layer.

    Raises:
        TaskError: the task raises, or has no training data.
    """
    sums = {name: _Moment(layer) for name, layer in layers.items()}
    with seeded(rng_seed), torch.no_grad(), _watched(model, sums), asked("training() or loss()"):
        for _, batch in zip(range(batches), passed(task.training(), "training data"), strict=False):
            task.loss(model, batch)
    return {name: each.mean() for name, each in sums.items()}


class _Moment:
    """The sum of x·xᵀ over all patches so far."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._sum: Tensor | None = None
        self._count = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = patches(self._layer, inputs[0].detach())
        product = (seen.T @ seen).to(torch.float64)
        self._sum = product if self._sum is None else self._sum + product
        self._count += len(seen)

    def mean(self) -> Tensor:
        """Zero where the layer never ran."""
        size = self._layer.in_features * self._layer.kernel[0] * self._layer.kernel[1]
        total = torch.zeros(size, size) if self._sum is None else self._sum / self._count
        return total.to(torch.float32)


def patches(layer: Layer, x: Tensor, most: int = MOST_PATCHES) -> Tensor:
    """What the layer's weight is multiplied with: one row for each position, at most about `most`.

    >>> patches(Layer("", "linear", (1, 2)), torch.zeros(3, 5, 2)).shape
    torch.Size([15, 2])
    """
    if layer.kind == "linear":
        return x.reshape(-1, x.shape[-1])[:most]
    (top, bottom), (left, right) = layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    images = x if x.dim() == 4 else x[None]
    positions = -(-images.shape[-1] // layer.stride[1]) * -(-images.shape[-2] // layer.stride[0])
    some = images[: max(1, most // max(1, positions))]
    padded = F.pad(some, (left, right, top, bottom), mode=mode)
    columns = F.unfold(padded.contiguous(), layer.kernel, layer.dilation, stride=layer.stride)
    return columns.transpose(1, 2).flatten(0, 1)


@contextmanager
def _watched(model: nn.Module, hooks: Mapping[str, Callable[[nn.Module, tuple[Tensor, ...]], None]]) -> Iterator[None]:
    """The model in evaluation mode, each of these layers watched."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    handles = [model.get_submodule(name).register_forward_pre_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
