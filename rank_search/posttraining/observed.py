"""What running a network on some batches tells: the inputs of a layer, and how far the outputs feel each tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rank_search.errors import TaskError
from rank_search.layers import Layer, layer_by_layer
from rank_search.trials import Batch, patches, seeded

Feed = Callable[[nn.Module, Batch], object]
"""Runs a model on a batch. What it returns is not looked at: the model's outputs are seen on their way."""

MOST_PATCHES: Final = 1 << 15
"""Of a layer, from one batch."""

_PROBES: Final = 2  # random directions of the outputs, for each batch


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer's inputs, each followed by a one, for the bias.

    Attributes:
        seen: E[z·zᵀ] of the inputs z that it has now, (n + 1) × (n + 1) in float64.
        cross: E[x·zᵀ] with the inputs x that it had in the network as it was.
    """

    seen: Tensor
    cross: Tensor


def moments(before: nn.Module, now: nn.Module, layer: Layer, feed: Feed, batches: Iterable[Batch]) -> Moments:
    """The moments of one layer's inputs in a network as it was, and as it is now.

    Both are run up to this layer on each batch. O(patches·n²) beside the forwards.

    Raises:
        TaskError: a model does not come to the layer.
    """
    size = layer.in_features * layer.kernel[0] * layer.kernel[1] + 1
    seen, cross = torch.zeros(2, size, size, dtype=torch.float64).unbind()
    count = 0
    for batch in batches:
        x, z = (_with_one(_inputs(model, layer, feed, batch)) for model in (before, now))
        seen += (z.T @ z).double()
        cross += (x.T @ z).double()
        count += len(z)
    return Moments(seen / count, cross / count)


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.ones(len(rows), 1).to(rows)], 1)


class _Enough(BaseException):
    """The layer has seen all of its inputs: the rest of the forward is not needed.

    No error: what stands between is not to take it for one.
    """


@torch.no_grad()
def _inputs(model: nn.Module, layer: Layer, feed: Feed, batch: Batch) -> Tensor:
    found: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(patches(layer, inputs[0].detach(), MOST_PATCHES))
        if len(found) == max(1, len(layer.inputs)):
            raise _Enough

    handle = model.get_submodule(layer.name).register_forward_pre_hook(look)
    try:
        with suppress(_Enough), layer_by_layer():
            feed(model, batch)
    finally:
        handle.remove()
    if not found:
        raise TaskError(f"A calibration batch runs through every layer; {layer.name} was not called. Choose others.")
    return torch.cat(found)


@dataclass(frozen=True)
class Sensitivity:
    """How far a network's outputs feel a change, as a share of their own mean square.

    Attributes:
        outputs: by layer: what a squared error of one at each position of an output channel does to the outputs, for
            each channel (float64).
        parameters: by parameter: what a squared error of one in one number does, mean of the numbers.
    """

    outputs: Mapping[str, Tensor]
    parameters: Mapping[str, float]


def sensitivity(
    model: nn.Module, layers: Sequence[str], feed: Feed, batches: Iterable[Batch], rng_seed: int = 0
) -> Sensitivity:
    """The network's outputs, differentiated: no labels are needed.

    Symbols: z the outputs for one example, y those of a layer, J = ∂z/∂y. With directions v of independent standard
    normal numbers, E[(Jᵀv)²] is the sum of squares of each column of J: what is asked is its sum over positions, mean
    over examples, over E‖z‖². Errors at two positions or in two channels are taken to be independent. The same with
    parameters in the place of y. A layer that no output depends on has zeros. Two backward passes for each batch.

    Raises:
        TaskError: the model gives no tensor with a gradient, or its outputs are all zero or not finite.
    """
    sums = _Sums()
    with seeded(rng_seed), torch.enable_grad(), layer_by_layer(), sums.watching(model, layers):
        for batch in batches:
            sums.outputs = []
            feed(model, batch)
            sums.add(model)
    if not 0 < sums.square < torch.inf:
        raise TaskError(f"Outputs are finite numbers, and not all zero; the sum of their squares is {sums.square}.")
    model.zero_grad(set_to_none=True)
    return Sensitivity(
        {name: total / (_PROBES * sums.square) for name, total in sums.layers.items()},
        {name: value / (_PROBES * sums.square) for name, value in sums.parameters.items()},
    )


class _Sums:
    """What has been summed over batches and directions so far."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.layers: dict[str, Tensor] = {}
        self.parameters: dict[str, float] = {}
        self.square = 0.0

    @contextmanager
    def watching(self, model: nn.Module, layers: Iterable[str]) -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(model.register_forward_hook(self._keep).remove)
            for name in layers:
                module = model.get_submodule(name)
                stack.callback(module.register_forward_hook(self._of_layer(name, module)).remove)
            yield

    def add(self, model: nn.Module) -> None:
        if not self.outputs:
            raise TaskError("The outputs of a model are tensors with a gradient; this one gave none.")
        self.square += sum(float(each.detach().double().square().sum()) for each in self.outputs)
        for probe in range(_PROBES):
            model.zero_grad(set_to_none=True)
            directions = [torch.randn_like(each) for each in self.outputs]
            torch.autograd.backward(self.outputs, directions, retain_graph=probe + 1 < _PROBES)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    square = float(parameter.grad.double().square().mean())
                    self.parameters[name] = self.parameters.get(name, 0.0) + square

    def _keep(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        leaves = [each for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor)]
        self.outputs += [each for each in leaves if each.requires_grad]

    def _of_layer(self, name: str, module: nn.Module) -> Callable[[nn.Module, Any, Tensor], None]:
        mode = 1 if isinstance(module, nn.Conv2d) else -1
        self.layers[name] = torch.zeros(len(module.get_parameter("weight")), dtype=torch.float64)

        def gradient(found: Tensor) -> None:
            self.layers[name] += found.double().square().movedim(mode, 0).flatten(1).sum(1)

        def forward(module: nn.Module, inputs: Any, outputs: Tensor) -> None:
            if outputs.requires_grad:
                outputs.register_hook(gradient)  # type: ignore[no-untyped-call]

        return forward
