"""What running a network on some batches tells of a layer's inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.layers import Layer, input_of, layer_by_layer
from rank_search.quantization.outputs import Feed
from rank_search.tasks import Batch, seeded, wide

MOST_PATCHES: Final = 1 << 15
"""Of a layer, from one batch."""

WIDEST: Final = 8192
"""Inputs of a layer whose covariance is taken whole; that of a wider one is taken in blocks."""

BLOCK: Final = 2048
"""Inputs in a block, at most."""

_NUMBERS: Final = 1 << 27  # in the patches of a layer, from one batch
_ROWS: Final = 4096  # whose products are summed in float32, before they are added up in float64


@dataclass(frozen=True)
class Covariance:
    """Of some of a layer's inputs, in float64.

    Attributes:
        columns: which inputs.
        seen: that of the inputs z that the layer has now: E[z·zᵀ] − E[z]·E[z]ᵀ.
        cross: with the inputs x that it had in the network as it was: E[x·zᵀ] − E[x]·E[z]ᵀ.
    """

    columns: slice
    seen: Float[Tensor, "n n"]
    cross: Float[Tensor, "n n"]


@dataclass(frozen=True)
class Moments:
    """Of a layer's inputs.

    Attributes:
        count: rows (positions of inputs) that were seen.
        was, mean: E[x] and E[z], n numbers in float64; x and z as in `Covariance`.
        blocks: one for all inputs, or several for a layer wider than `WIDEST`.
    """

    count: int
    was: Float[Tensor, " n"]
    mean: Float[Tensor, " n"]
    blocks: tuple[Covariance, ...]


def moments(before: nn.Module, now: nn.Module, layer: Layer, feed: Feed, batches: Iterable[Batch]) -> Moments:
    """The moments of one layer's inputs in a network as it was, and as it is now.

    Both are run up to this layer on each batch, with the same random numbers. Where they do not come to it with as many
    rows (a choice that has turned over), those of the network as it is now stand for both. Rows that are not finite
    are left out. Sums are centred and in float64. O(patches·n·b) beside the forwards, b inputs in a block.
    """
    found = _Running(layer)
    for rng_seed, batch in enumerate(batches):
        x, z = (_inputs(model, layer, feed, batch, rng_seed) for model in (before, now))
        if len(z):
            found.add(*_finite(x if x.shape == z.shape else z, z))
    return found.moments()


def _finite(
    x: Float[Tensor, "rows n"], z: Float[Tensor, "rows n"]
) -> tuple[Float[Tensor, "kept n"], Float[Tensor, "kept n"]]:
    usable = (x.isfinite() & z.isfinite()).all(1)
    return (x, z) if bool(usable.all()) else (x[usable], z[usable])


def size_of(layer: Layer) -> int:
    """n: the inputs that one output is made of."""
    return layer.in_features * math.prod(layer.kernel)


def columns_of(size: int) -> list[slice]:
    """The blocks in which the covariance of that many inputs is taken, of nearly the same size.

    >>> columns_of(8192), len(columns_of(25088))
    ([slice(0, 8192, None)], 13)
    """
    count = 1 if size <= WIDEST else -(-size // BLOCK)
    ends = [size * number // count for number in range(count + 1)]
    return [slice(begin, end) for begin, end in pairwise(ends)]


class _Running:
    """Means and centred sums of products so far (Chan, Golub, LeVeque 1979)."""

    def __init__(self, layer: Layer) -> None:
        size = size_of(layer)
        self.count = 0
        self.was, self.mean = torch.zeros(2, size, dtype=torch.float64).unbind()
        self.blocks = [_sums(each) for each in columns_of(size)]

    def add(self, x: Float[Tensor, "rows n"], z: Float[Tensor, "rows n"]) -> None:
        same = torch.equal(x, z)
        for xs, zs in zip(torch.split(x, _ROWS), torch.split(z, _ROWS), strict=True):
            self._add(zs if same else xs, zs)

    def _add(self, x: Float[Tensor, "rows n"], z: Float[Tensor, "rows n"]) -> None:
        rows, total = len(z), self.count + len(z)
        far_z, z = _centred(z, self.mean)
        far_x, x = (far_z, z) if x is z else _centred(x, self.was)
        share = self.count * rows / total
        for block in self.blocks:
            columns, right = block.columns, z[:, block.columns]
            product = (right.T @ right).double()  # b × b
            block.seen.add_(product + share * torch.outer(far_z[columns], far_z[columns]))
            mixed = product if x is z else (x[:, columns].T @ right).double()
            block.cross.add_(mixed + share * torch.outer(far_x[columns], far_z[columns]))
        self.mean += far_z * (rows / total)
        self.was += far_x * (rows / total)
        self.count = total

    def moments(self) -> Moments:
        count = max(1, self.count)
        for block in self.blocks:
            block.seen.div_(count)
            block.cross.div_(count)
        return Moments(self.count, self.was, self.mean, tuple(self.blocks))


def _sums(columns: slice) -> Covariance:
    width = columns.stop - columns.start
    return Covariance(columns, *torch.zeros(2, width, width, dtype=torch.float64).unbind())


def _centred(
    rows: Float[Tensor, "rows n"], mean: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "rows n"]]:
    """How far the mean of these rows is from that of all before, and the rows about their own mean."""
    own = rows.double().mean(0)
    return own - mean, (rows.double() - own).to(rows.dtype)


class _Enough(BaseException):
    """The layer has seen all of its inputs: the rest of the forward is not needed.

    No error: what stands between is not to take it for one.
    """


@torch.no_grad()
def _inputs(model: nn.Module, layer: Layer, feed: Feed, batch: Batch, rng_seed: int) -> Float[Tensor, "rows n"]:
    """No rows where the model does not come to the layer."""
    size = size_of(layer)
    found: list[Tensor] = []
    most = min(MOST_PATCHES, max(1, _NUMBERS // max(1, size)))

    def look(module: nn.Module, inputs: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> None:
        found.append(wide(layer.columns(input_of(inputs, named).detach(), most)))
        if len(found) == max(1, len(layer.inputs)):
            raise _Enough

    handle = model.get_submodule(layer.name).register_forward_pre_hook(look, with_kwargs=True)
    try:
        with suppress(_Enough), seeded(rng_seed), layer_by_layer():
            feed(model, batch)
    finally:
        handle.remove()
    return torch.cat(found) if found else torch.zeros(0, size)
