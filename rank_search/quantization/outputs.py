"""What a network gives on a batch, and how far two networks are apart in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rank_search.tasks import Batch, seeded

Feed = Callable[[nn.Module, Batch], object]
"""Runs a model on a batch. What it returns is not looked at: the model's outputs are seen on their way."""


def tensors_in(outputs: object) -> Iterator[Tensor]:
    """Every tensor of a model's outputs: in tuples, lists, dictionaries, named tuples and data classes."""
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            yield leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            yield from tensors_in([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])


def is_number(tensor: Tensor) -> bool:
    """Whether it is of real or complex numbers, and not of integers or truth values."""
    return tensor.is_floating_point() or tensor.is_complex()


def square(tensor: Tensor) -> Tensor:
    """|x|² of each entry, in float64."""
    return torch.view_as_real(tensor).double().square().sum(-1) if tensor.is_complex() else tensor.double().square()


@torch.no_grad()
def outputs_of(model: nn.Module, feed: Feed, batch: Batch, rng_seed: int) -> list[Tensor]:
    """The tensors that the model gives on a batch, copied; random numbers that it draws are those of the seed."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, outputs: Any) -> None:
        found.extend(each.detach().clone() for each in tensors_in(outputs))

    handle = model.register_forward_hook(keep)
    try:
        with seeded(rng_seed):
            feed(model, batch)
    finally:
        handle.remove()
    return found


@dataclass
class Distance:
    """How far outputs are from those that were expected, summed over batches.

    Attributes:
        lost, of: squared differences of numbers, and the squares of those expected; not finite ones are not compared.
        changed, count: of integers and truth values: how many differ, and how many there are.
    """

    lost: float = 0.0
    of: float = 0.0
    changed: int = 0
    count: int = 0

    def add(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> None:
        """Take in the outputs on one batch. What has another shape, or is not there, counts as wholly different."""
        for place, one in enumerate(expected):
            other = found[place] if place < len(found) and found[place].shape == one.shape else None
            if is_number(one):
                self._add_numbers(one, other)
            else:
                self.count += one.numel()
                self.changed += one.numel() if other is None else int((one != other).sum())

    def _add_numbers(self, one: Tensor, other: Tensor | None) -> None:
        known = one.isfinite()
        of = float(square(one[known]).sum())
        self.of += of
        self.lost += of if other is None else float(square(one[known] - other[known]).sum())

    @property
    def relative(self) -> float:
        """The squared error of the numbers relative to their square, or the share of integers that differ.

        The larger of the two; infinite where a number is no longer finite.

        >>> distance = Distance()
        >>> distance.add([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 3.0])])
        >>> distance.relative
        0.04
        """
        share = self.changed / self.count if self.count else 0.0
        if self.lost == 0:
            return share
        error = self.lost / self.of if self.of else torch.inf
        return max(share, error) if error == error else torch.inf


def distance_of(expected: nn.Module, found: nn.Module, feed: Feed, batches: Sequence[Batch]) -> Distance:
    """Both on the same batches, with the same random numbers."""
    distance = Distance()
    for rng_seed, batch in enumerate(batches):
        one, other = (outputs_of(model, feed, batch, rng_seed) for model in (expected, found))
        distance.add(one, other)
    return distance
