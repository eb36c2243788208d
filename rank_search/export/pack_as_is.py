"""A trained network becomes a small file, without training and without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import nn

from rank_search.errors import TaskError, TrialError
from rank_search.export.arguments import completed
from rank_search.export.asked import places_asked
from rank_search.export.packed import pack_module
from rank_search.layers import Example, forward, tensors_of, with_tensors
from rank_search.quantization import Feed, PostTrainingQuantizer, RoundedModel
from rank_search.tasks import Batch, Seen, inputs_in, seeded, watched

SLOPE: Final = 1e-3
"""Relative squared error of the outputs that a kilobyte is worth."""

_NOISE: Final = (8, 32)  # batches, and examples of each, where there is no data
_TRIES: Final = 8
_NEAR: Final = 0.97  # of the size asked for: near enough


@dataclass(frozen=True)
class PackedModel(RoundedModel):
    """A model rounded to whole steps and coded, which can be written as a file.

    Attributes:
        seen: what the batches gave forward: dimensions of several sizes stay so in the file.
    """

    seen: Seen = field(default_factory=Seen)

    def write(self, path: str | Path, dynamic: Iterable[str] | None = None) -> None:
        """Write a file for `rank_search.load`: the coded bytes, and the traced graph.

        Args:
            dynamic: dimensions of the inputs that are to take several sizes, beside the batch and those that differ in
                the batches it was packed with: "1" (of every input), "ids:1" or "0:1" (of one); "none" leaves out
                those of the batches.

        Raises:
            ExportError: the file is there already, or cannot be written; the model cannot be traced, or what was
                written gives other outputs. Nothing is left then.
        """
        example = completed(self.model, self.example, self.seen)
        asked = places_asked(dynamic, self.model, example, self.seen)
        pack_module(self.model, example, self.payload, Path(path), {"slope": self.slope}, asked)


def pack_model(
    model: nn.Module,
    batches: Iterable[Example] | None = None,
    *,
    example: Example,
    slope: float | None = None,
    size: int | None = None,
) -> PackedModel:
    """Round and code a trained model so that its outputs stay close: minutes, no training, no labels.

    Layer after layer in the order of the model is first fitted to give its old outputs on its new inputs, then rounded
    with compensation for its curvature (see `rank_search.quantization.rounding`). All layers, and all biases, give up
    the same share of the outputs' square for a bit, so that one number decides the size. After each layer the outputs
    are compared with those of the model as it was: one that moves them much farther than its gradient says is rounded
    finer, and one whose gradient says nothing (behind an argmax, a comparison, a code book, a `detach()`, or where no
    input comes to it) is kept at a safe step; both are named in the result. A layer of more than 8192 inputs is taken
    in blocks of them, so that it fits; what a wide layer takes is logged before.

    Args:
        model: it is not changed.
        batches: inputs, without labels, such as the training data's: each is what the model's forward takes, or a
            dictionary with that in it. Some hundred examples are enough. Without them, inputs of random numbers stand
            in, and a given accuracy takes more bytes.
        example: what one forward takes, as a batch of 1: a tensor, a tuple by position, or a dictionary by name.
        slope: the relative squared error of the outputs that a kilobyte is worth: larger is smaller. Default 0.001.
        size: bytes that are not to be exceeded, in the place of a slope.

    Raises:
        TaskError: the model does not run on the batches, or there are none.
        TrialError: neither positive, both given, or the size cannot be reached.
    """
    given = _noise(example) if batches is None else [_inputs(each, example) for each in batches]
    return pack(model, forward, given, example, slope, size)


def pack(
    model: nn.Module,
    feed: Feed,
    batches: list[Batch],
    example: Example,
    slope: float | None = None,
    size: int | None = None,
) -> PackedModel:
    """`pack_model` with batches of any kind, and a function that runs a model on one."""
    for name, value in (("slope", slope), ("size", size)):
        if value is not None and not 0 < value < math.inf:
            raise TrialError(f"The {name} is {value}; it must be a positive number.")
    if slope is not None and size is not None:
        raise TrialError("Both a slope and a size were given; the slope decides the size. Leave one out.")
    if not batches:
        raise TaskError("There is no batch to calibrate with. Is the data set empty, or used up?")
    press = PostTrainingQuantizer.of(model, feed, batches, example)
    found = press.at(slope or SLOPE) if size is None else _within(size, press.at)
    return PackedModel(**vars(found), seen=_seen(press.model, feed, batches))


@torch.no_grad()
def _seen(model: nn.Module, feed: Feed, batches: list[Batch]) -> Seen:
    """What the batches give forward."""
    with watched(model) as watch, seeded(0):
        for batch in batches:
            feed(model, batch)
    return watch.seen


def _within(size: int, at: Callable[[float], RoundedModel]) -> RoundedModel:
    """The slope is found along log(size) against log(slope), which is nearly a line."""
    slope, power = SLOPE, -0.5
    best: RoundedModel | None = None
    tried: list[RoundedModel] = []
    for _ in range(_TRIES):
        found = at(slope)
        if found.size <= size and (best is None or found.size > best.size):
            best = found
        if best is not None and best.size >= _NEAR * size:
            break
        if tried and tried[-1].size != found.size:
            power = math.log(found.size / tried[-1].size) / math.log(found.slope / tried[-1].slope)
        tried.append(found)
        aim = (1 + _NEAR) / 2 * size / found.size
        slope *= min(max(aim ** (1 / min(max(power, -1.0), -0.2)), 1e-3), 1e3)
    if best is None:
        smallest = min(each.size for each in tried)
        raise TrialError(f"The model does not fit into {size} bytes; the smallest found takes {smallest}. Allow more.")
    return best


def _noise(example: Example) -> list[Example]:
    """Batches of standard normal numbers in the shape of the example."""
    count, examples = _NOISE
    if not all(part.is_floating_point() and part.dim() for part in tensors_of(example)):
        raise TaskError(
            "The model takes other than floating-point inputs, which cannot be random. Give calibration batches."
        )
    with seeded(0):
        return [
            with_tensors(example, lambda each: torch.randn(examples, *each.shape[1:]).to(each)) for _ in range(count)
        ]


def _inputs(batch: Example, example: Example) -> Example:
    """A batch; of a dictionary what the example has."""
    return inputs_in(batch, example) if isinstance(example, Mapping) else batch
