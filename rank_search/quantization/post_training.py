"""Rounds the layers of a network one after another, each on the inputs that the layers before it now give."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.coding import Grid, decode, encode
from rank_search.layers import Example, Layer, copied, fuse, require_ordinary, take_inventory
from rank_search.quantization.closeness import Closeness
from rank_search.quantization.expense import say_expense
from rank_search.quantization.observed import moments
from rank_search.quantization.outputs import Feed, distance_of
from rank_search.quantization.rounded import Rounded, is_rounded, put, put_safely, round_layer_in_place, round_safely
from rank_search.quantization.rounding import step_for
from rank_search.quantization.sensitivity import Sensitivity, sensitivity
from rank_search.tasks import Batch

LARGE: Final = 0.1
"""Relative squared error of the outputs that is worth a warning."""

_KILOBYTE: Final = 8192.0
_LEAST: Final = 1e-6  # of the most sensitive layer: what no output feels still has a step
_FINER: Final = 2.0**-6  # of the slope, at most, where a layer goes farther than predicted: three bits more a weight
_SAVED: Final = 12.0  # bits of a weight, at most, that a coarse step saves beside a safe one
_LEAST_CHANNEL: Final = 1e-4  # of the mean of its layer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackedLayer:
    """What became of one layer: its mean step, the share of zeros, and the relative squared error of its outputs.

    Of a layer that is kept at a safe step (see `RoundedModel.safe`) the error is that of its weights.
    """

    name: str
    weights: int
    step: float
    zeros: float
    error: float


@dataclass(frozen=True)
class RoundedModel:
    """A model rounded to whole steps, and its coded bytes.

    Attributes:
        model: in evaluation mode, without gradients, with exactly the weights that the bytes decode to; batch norms are
            folded into the layers before them where the model can be traced.
        example: what one forward takes.
        payload: the coded state of `model`: `rank_search.decode` gives it.
        grids: of the tensors that were rounded.
        slope: relative squared error of the outputs that a kilobyte was worth.
        layers: in the order in which they were rounded.
        error: of the outputs on the calibration batches, against those of the model as it was: their squared error
            relative to their square, or the share of integers (classes, say) that differ, whichever is larger.
        safe: layers and other parameters for which it cannot be predicted what a change does to the outputs, each with
            the reason. Where the gradient says nothing they keep about twelve bits (16-bit numbers all of theirs),
            at every slope; where it was seen to say too little, as many as it takes.
    """

    model: nn.Module
    example: Example
    payload: bytes
    grids: Mapping[str, Grid]
    slope: float
    layers: tuple[PackedLayer, ...]
    error: float = 0.0
    safe: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return len(self.payload)


@dataclass(frozen=True)
class PostTrainingQuantizer:
    """What is found out once about a network, for every slope.

    Attributes:
        model: as it was, in evaluation mode, its batch norms folded if it can be traced.
        layers: by name, in the order in which they run; grouped ones are rounded as other parameters are.
        felt: how far its outputs feel each layer and each parameter.
        closeness: how near rounded copies stay to it.
    """

    model: nn.Module
    example: Example
    layers: Mapping[str, Layer]
    feed: Feed
    batches: list[Batch]
    felt: Sensitivity
    closeness: Closeness

    @classmethod
    def of(cls, model: nn.Module, feed: Feed, batches: list[Batch], example: Example) -> PostTrainingQuantizer:
        """Fold batch norms, list the layers, and differentiate the outputs on the batches.

        Raises:
            TaskError, LayerError: the model cannot be run, or its weights are not finite.
        """
        require_ordinary(model)
        plain = fuse(model, example) or copied(model).eval()
        for parameter in plain.parameters():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        found = {name: each for name, each in take_inventory(plain, example).layers.items() if _is_matched(each)}
        say_expense(found.values())
        closeness = Closeness.of(plain, feed, batches)
        felt = sensitivity(plain, list(found), feed, batches)
        return cls(plain, example, found, feed, batches, felt, closeness)

    @torch.no_grad()
    def at(self, slope: float) -> RoundedModel:
        """The model rounded where a kilobyte is worth this relative squared error of the outputs."""
        rounding = _Rounding(self, slope / _KILOBYTE)
        for name in self.layers:
            rounding.layer(name)
        rounding.parameters()
        return rounding.finished(slope)

    def channels(self, name: str) -> Tensor:
        """How far the outputs feel each channel of a layer; never zero."""
        found = self.felt.outputs[name]
        return found.clamp_min(self.floor(float(found.mean()) * _LEAST_CHANNEL))

    def floor(self, value: float) -> float:
        """The value, or the least that counts."""
        most = max((float(each.mean()) for each in self.felt.outputs.values()), default=0.0)
        return max(value, _LEAST * most) or 1.0


class _Rounding:
    """One copy of the network on its way through its layers."""

    def __init__(self, press: PostTrainingQuantizer, slope: float) -> None:
        self.press, self.slope = press, slope
        self.now = copied(press.model).requires_grad_(False)
        self.grids: dict[str, Grid] = {}
        self.rows: list[PackedLayer] = []
        self.safe: dict[str, str] = {}
        self.error = 0.0  # so far, on the batches that are compared

    def layer(self, name: str) -> None:
        module, doubt = self.now.get_submodule(name), self.press.felt.doubt_of_layer(name)
        found = None
        if not doubt:
            found, doubt = self._predicted(name, module)
        if doubt:
            self.safe[name] = doubt
        if found is None:
            found = round_safely(module)
            self.error = self.press.closeness.error(self.now)
        self.grids |= {f"{name}.{key}": grid for key, grid in found.grids.items()}
        count = module.get_parameter("weight").numel()
        self.rows.append(PackedLayer(name, count, found.step, found.zeros, found.error))

    def _predicted(self, name: str, module: nn.Module) -> tuple[Rounded | None, str]:
        """The layer rounded as far as its gradient says it may be, or finer; and what speaks against the former.

        None if it went too far even so: then it is as before.
        """
        press = self.press
        seen = moments(press.model, self.now, press.layers[name], press.feed, press.batches)
        if not seen.count:
            return None, "no finite calibration input comes to it"
        before, doubt, share = {key: each.clone() for key, each in module.named_parameters()}, "", 1.0
        while True:
            found = round_layer_in_place(module, seen, press.channels(name), share * self.slope)
            count, is_finer = module.get_parameter("weight").numel(), share < 1.0
            surprise, moved = self._surprise(found.predicted, count, alone=is_finer)
            doubt = doubt or surprise
            if not surprise:
                return found, doubt
            _restore(module, before)
            if share == _FINER:
                return None, doubt
            # the error is in proportion to the slope: what was seen of it says how much finer is fine enough
            share = max(_FINER, found.predicted / moved) if share == 1.0 else _FINER

    def _surprise(self, predicted: float, count: int, alone: bool = False) -> tuple[str, float]:
        """Whether the outputs are much farther away than predicted, and how far they moved.

        If they are not, that is how far they are from now on. `alone`: see `Closeness.surprise`.
        """
        error, before = self.press.closeness.error(self.now), self.error
        doubt = self.press.closeness.surprise(error, before, predicted, self.slope * _SAVED * count, alone)
        self.error = before if doubt else error
        return doubt, error - before

    def parameters(self) -> None:
        """All that is no weight or bias of a layer: together, or one by one where together they go too far."""
        left = {name: each for name, each in self.now.named_parameters() if is_rounded(each)}
        own = {f"{name}.{key}" for name in self.press.layers for key in ("weight", "bias")}
        left = {name: each for name, each in left.items() if name not in own}
        doubts = {name: self.press.felt.doubt_of_parameter(name) for name in left}
        self._safely({name: doubt for name, doubt in doubts.items() if doubt})
        some = {name: each for name, each in left.items() if not doubts[name]}
        if some and self._together(some):
            for name, parameter in some.items():
                if doubt := self._together({name: parameter}):
                    self._safely({name: doubt})

    def _together(self, some: Mapping[str, nn.Parameter]) -> str:
        before = {name: each.clone() for name, each in some.items()}
        predicted = 0.0
        for name, parameter in some.items():
            felt = self.press.floor(self.press.felt.parameters[name])
            self.grids[name] = put(parameter, parameter, step_for(self.slope, felt))
            predicted += felt * float((parameter.double() - before[name].double()).square().sum())
        doubt, _ = self._surprise(predicted, sum(each.numel() for each in some.values()))
        if doubt:
            for name, parameter in some.items():
                parameter.copy_(before[name])
                del self.grids[name]
        return doubt

    def _safely(self, doubts: Mapping[str, str]) -> None:
        self.safe |= doubts
        for name in doubts:
            if (grid := put_safely(self.now.get_parameter(name))) is not None:
                self.grids[name] = grid
        if doubts:
            self.error = self.press.closeness.error(self.now)

    def finished(self, slope: float) -> RoundedModel:
        press, now = self.press, self.now
        payload = encode(now.state_dict(), self.grids)
        now.load_state_dict(decode(payload))
        error = distance_of(press.model, now, press.feed, press.batches).relative
        found = RoundedModel(now, press.example, payload, self.grids, slope, tuple(self.rows), error, self.safe)
        _say(found, press.closeness.noise)
        return found


def _is_matched(layer: Layer) -> bool:
    """Whether its rounding is led by what it sees; all else is rounded as parameters are, by what its numbers do."""
    return 0 not in layer.shape and layer.groups == 1 and not layer.one_hot and not layer.ties


def _restore(module: nn.Module, before: Mapping[str, Tensor]) -> None:
    for key, parameter in module.named_parameters():
        parameter.copy_(before[key])


def _say(found: RoundedModel, noise: float) -> None:
    if found.safe:
        _log.info("Kept at a safe step, as it cannot be predicted what a change does: %s.", ", ".join(found.safe))
    if noise > 0:
        _log.warning("The model gives other outputs when it is run again, by %.2g of their square.", noise)
    if not found.error <= LARGE:
        _log.warning(
            "The outputs of the packed model are off by %.2g of their square on the calibration batches. A smaller "
            "slope, or a larger size, brings them nearer.",
            found.error,
        )
