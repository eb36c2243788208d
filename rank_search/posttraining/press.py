"""Rounds the layers of a network one after another, each on the inputs that the layers before it now give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.coding import Grid, decode, encode
from rank_search.export import pack_module
from rank_search.layers import Example, Layer, copied, fuse, require_ordinary, take_inventory
from rank_search.posttraining.observed import Feed, Moments, Sensitivity, moments, sensitivity
from rank_search.posttraining.rounding import pivots, refit, round_layer, step_for
from rank_search.trials import Batch

_KILOBYTE: Final = 8192.0
_LEAST: Final = 1e-6  # of the most sensitive layer: what no output feels still has a step
_LEAST_CHANNEL: Final = 1e-4  # of the mean of its layer


@dataclass(frozen=True)
class PackedLayer:
    """What became of one layer: its step, the share of zeros, and the relative squared error of its outputs."""

    name: str
    weights: int
    step: float
    zeros: float
    error: float


@dataclass(frozen=True)
class PackedModel:
    """A model rounded to whole steps, and its coded bytes.

    Attributes:
        model: in evaluation mode, without gradients, with exactly the weights that the bytes decode to; batch norms are
            folded into the layers before them where the model can be traced.
        example: what one forward takes.
        payload: the coded state of `model`: `rank_search.decode` gives it.
        grids: of the tensors that were rounded.
        slope: relative squared error of the outputs that a kilobyte was worth.
        layers: in the order in which they were rounded.
    """

    model: nn.Module
    example: Example
    payload: bytes
    grids: Mapping[str, Grid]
    slope: float
    layers: tuple[PackedLayer, ...]

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return len(self.payload)

    def write(self, path: str | Path) -> None:
        """Write a file for `rank_search.load`: the coded bytes, and the traced graph.

        Raises:
            ExportError: the file is there already, or cannot be written; the model cannot be traced, or what was
                written gives other outputs. Nothing is left then.
        """
        pack_module(self.model, self.example, self.payload, Path(path), {"slope": self.slope})


@dataclass(frozen=True)
class Press:
    """What is found out once about a network, whatever the slope.

    Attributes:
        model: as it was, in evaluation mode, its batch norms folded if it can be traced.
        layers: by name, in the order in which they run.
        felt: how far its outputs feel each layer and each parameter.
    """

    model: nn.Module
    example: Example
    layers: Mapping[str, Layer]
    feed: Feed
    batches: list[Batch]
    felt: Sensitivity

    @classmethod
    def of(cls, model: nn.Module, feed: Feed, batches: list[Batch], example: Example) -> Press:
        """Fold batch norms, list the layers, and differentiate the outputs on the batches.

        Raises:
            TaskError, LayerError: the model cannot be run, or its weights are not finite.
        """
        require_ordinary(model)
        plain = fuse(model, example) or copied(model).eval()
        found = take_inventory(plain, example).layers
        felt = sensitivity(plain.requires_grad_(True), list(found), feed, batches)
        return cls(plain, example, {name: found[name] for name in felt.outputs}, feed, batches, felt)

    @torch.no_grad()
    def at(self, slope: float) -> PackedModel:
        """The model rounded where a kilobyte is worth this relative squared error of the outputs."""
        now, grids, rows = copied(self.model), dict[str, Grid](), []
        for name, layer in self.layers.items():
            seen = moments(self.model, now, layer, self.feed, self.batches)
            module, felt = now.get_submodule(name), self._channels(name)
            found, row = _round(name, module, seen, felt, slope / _KILOBYTE)
            grids |= {f"{name}.{key}": grid for key, grid in found.items()}
            rows.append(row)
        for name, parameter in now.named_parameters():
            if name not in grids and parameter.numel():
                step = step_for(slope / _KILOBYTE, self._floor(self.felt.parameters.get(name, 0.0)))
                grids[name] = _put(parameter, parameter, step)
        payload = encode(now.state_dict(), grids)
        now.load_state_dict(decode(payload))
        return PackedModel(now.requires_grad_(False), self.example, payload, grids, slope, tuple(rows))

    def _channels(self, name: str) -> Tensor:
        found = self.felt.outputs[name]
        return found.clamp_min(self._floor(float(found.mean()) * _LEAST_CHANNEL))

    def _floor(self, value: float) -> float:
        most = max((float(each.mean()) for each in self.felt.outputs.values()), default=0.0)
        return max(value, _LEAST * most) or 1.0


def _round(
    name: str, module: nn.Module, seen: Moments, felt: Tensor, slope: float
) -> tuple[dict[str, Grid], PackedLayer]:
    """Fit a layer to its new inputs and round it in place."""
    weight, bias = module.get_parameter("weight"), dict(module.named_parameters()).get("bias")
    W = weight.flatten(1).double()
    H, mean = seen.seen[:-1, :-1], seen.seen[:-1, -1]
    if bias is None:
        fitted, curvature = refit(W, H, seen.cross[:-1, :-1]), H
    else:  # the bias makes up for the mean of an error, so that only its variance counts
        both = refit(torch.cat([W, bias[:, None].double()], 1), seen.seen, seen.cross)
        fitted, curvature = both[:, :-1], H - torch.outer(mean, mean)
    order, U = pivots(curvature)
    felt_by_weight = float(felt.mean() / U.diagonal().log().mean().mul(2).exp())
    step = min(step_for(slope, felt_by_weight), 2 * float(fitted.abs().max()) or 1.0)
    grid = Grid.nearest(torch.full((1,) * weight.dim(), step))
    whole = round_layer(fitted, grid.steps().reshape(1, 1), curvature, slope / felt[:, None], (order, U))
    weight.copy_(grid.values(whole.reshape(weight.shape), weight.dtype))
    grids = {"weight": grid}
    error = fitted - weight.flatten(1).double()
    if bias is not None:
        grids["bias"] = _put(bias, both[:, -1] + error @ mean, step_for(slope, float(felt.mean())))
    lost, all_of_it = (float(((each @ curvature) * each).sum()) for each in (error, fitted))
    zeros = float((whole == 0).double().mean())
    return grids, PackedLayer(name, weight.numel(), float(grid.steps()), zeros, lost / all_of_it if all_of_it else 0.0)


def _put(parameter: Tensor, values: Tensor, step: float) -> Grid:
    """Put the nearest multiples of a step into a parameter."""
    step = min(step, 2 * float(values.abs().max()) or 1.0)
    grid = Grid.nearest(torch.full((1,) * parameter.dim(), step))
    parameter.copy_(grid.values(grid.round(values), parameter.dtype))
    return grid
