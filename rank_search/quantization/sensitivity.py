"""How far the outputs of a network feel each tensor in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors

from rank_search.errors import RankSearchError, TaskError
from rank_search.layers import Layer, layer_by_layer, weight_of
from rank_search.quantization.outputs import Feed, is_number, square, tensors_in
from rank_search.tasks import Batch, seeded

_PROBES: Final = 2  # random directions of the outputs, for each batch
_WAYS: Final[tuple[Callable[[], AbstractContextManager[Any]], ...]] = (nullcontext, allow_mutation_on_saved_tensors)
"""In which outputs are differentiated: the second keeps what a forward overwrites, for more memory."""


@dataclass(frozen=True)
class Sensitivity:
    """How far a network's outputs feel a change, as a share of their own mean square.

    Attributes:
        outputs: by layer: what a squared error of one at each position of an output channel does to the outputs, for
            each channel (float64).
        parameters: by parameter: what a squared error of one in one number does, mean of the numbers.
        reached: the layers that some input comes to.
        trouble: why nothing is known, where the outputs cannot be differentiated; then all of it is zero.
    """

    outputs: Mapping[str, Tensor]
    parameters: Mapping[str, float]
    reached: frozenset[str] = frozenset()
    trouble: str = ""

    def doubt_of_layer(self, name: str) -> str:
        """Why it is not known what a change of this layer does; empty where it is."""
        if not self.trouble and name not in self.reached:
            return "no calibration input comes to it"
        return self._doubt(float(self.outputs[name].sum()))

    def doubt_of_parameter(self, name: str) -> str:
        """The same of a parameter."""
        return self._doubt(self.parameters.get(name, 0.0))

    def _doubt(self, felt: float) -> str:
        if self.trouble or 0 < felt < torch.inf:
            return self.trouble
        return "its gradient is not finite" if felt else "no gradient of the outputs comes to it"


def sensitivity(
    model: nn.Module, layers: Sequence[str], feed: Feed, batches: Iterable[Batch], rng_seed: int = 0
) -> Sensitivity:
    """The network's outputs, differentiated: no labels are needed.

    Symbols: z the outputs for one example, y those of a layer, J = ∂z/∂y. With directions v of independent standard
    normal numbers, E[(Jᵀv)²] is the sum of squares of each column of J: what is asked is its sum over positions, mean
    over examples, over E‖z‖². Errors at two positions or in two channels are taken to be independent. The same with
    parameters in the place of y. A layer that no output depends on has zeros, and so has one that outputs depend on
    only through what has no gradient: an index, a comparison, a rounding, detached numbers. A forward that overwrites
    what its gradient needs is run once more, keeping it; if outputs cannot be differentiated at all, everything is
    zero, and `trouble` says why. Outputs that are not finite play no part. Two backward passes for each batch.

    Raises:
        TaskError: the model gives no tensor, or its outputs are all zero.
    """
    batches, trouble = list(batches), ""
    for way in _WAYS:
        try:
            return _differentiated(model, layers, feed, batches, rng_seed, way)
        except RankSearchError:
            raise
        except Exception as error:  # noqa: BLE001 - the model runs on these batches; what raises here is its gradient
            trouble = trouble or f"its forward cannot be differentiated ({' '.join(str(error).split())[:200]})"
        finally:
            model.zero_grad(set_to_none=True)
    return _unknown(model, layers, trouble)


def felt_by_parameter(model: nn.Module, feed: Feed, batches: Iterable[Batch]) -> Mapping[str, float]:
    """What a squared error of one in one number of each parameter does to the outputs: see `sensitivity`.

    Parameters that are not trained are coded, too, and count.

    Raises:
        TaskError: the model gives no tensor, or its outputs are all zero.
    """
    frozen = [each for each in model.parameters() if not each.requires_grad and is_number(each)]
    try:
        for each in frozen:
            each.requires_grad_(True)
        return sensitivity(model, (), feed, batches).parameters
    finally:
        for each in frozen:
            each.requires_grad_(False)


def _differentiated(
    model: nn.Module,
    layers: Sequence[str],
    feed: Feed,
    batches: Sequence[Batch],
    rng_seed: int,
    way: Callable[[], AbstractContextManager[Any]],
) -> Sensitivity:
    sums = _Sums()
    with seeded(rng_seed), torch.enable_grad(), layer_by_layer(), sums.watching(model, layers):
        for batch in batches:
            sums.outputs, sums.has_tensors = [], False
            with way():
                feed(model, batch)
                sums.add(model)
    if not sums.is_differentiable:
        return _unknown(model, layers, "no output of the model has a gradient")
    if not sums.square:
        raise TaskError(
            "The model's outputs are all zero on the calibration batches; they must not be. Check the model's weights "
            "and the batches."
        )
    scale = _PROBES * sums.square
    return Sensitivity(
        {name: total / scale for name, total in sums.layers.items()},
        {name: value / scale for name, value in sums.parameters.items()},
        frozenset(sums.reached),
    )


def _unknown(model: nn.Module, layers: Sequence[str], trouble: str) -> Sensitivity:
    sizes = {name: len(weight_of(model, name)) for name in layers}
    return Sensitivity(
        {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}, {}, trouble=trouble
    )


class _Sums:
    """What has been summed over batches and directions so far."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.has_tensors = False
        self.is_differentiable = False
        self.layers: dict[str, Tensor] = {}
        self.reached: set[str] = set()
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
        if not self.has_tensors:
            raise TaskError(
                "The model returned no tensor; outputs must be tensors, alone or in a tuple, list or dictionary."
            )
        if not self.outputs:
            return
        self.is_differentiable = True
        self.square += sum(float(square(each.detach()[each.isfinite()]).sum()) for each in self.outputs)
        for probe in range(_PROBES):
            model.zero_grad(set_to_none=True)
            directions = [torch.randn_like(each) * each.isfinite() for each in self.outputs]
            torch.autograd.backward(self.outputs, directions, retain_graph=probe + 1 < _PROBES)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and parameter.numel():
                    of_one = float(square(parameter.grad).mean())
                    self.parameters[name] = self.parameters.get(name, 0.0) + of_one

    def _keep(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        found = list(tensors_in(outputs))
        self.has_tensors = self.has_tensors or bool(found)
        self.outputs += [each for each in found if each.requires_grad and is_number(each)]

    def _of_layer(self, name: str, module: nn.Module) -> Callable[[nn.Module, Any, Tensor], None]:
        layer = Layer.of(module, name)
        channels = layer.channels  # from the end: an image may come without a batch
        self.layers[name] = torch.zeros(layer.out_features, dtype=torch.float64)

        def gradient(found: Tensor) -> None:  # examples × out × positions, or examples × positions × out
            self.layers[name] += square(found).movedim(channels, 0).flatten(1).sum(1)

        def forward(module: nn.Module, inputs: Any, outputs: Tensor) -> None:
            if outputs.numel():
                self.reached.add(name)
            if outputs.requires_grad:
                outputs.register_hook(gradient)  # type: ignore[no-untyped-call]

        return forward
