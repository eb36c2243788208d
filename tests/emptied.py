"""Factorizations whose components training has emptied, and strange ones."""

from __future__ import annotations

import torch
from torch import Tensor

from rank_search.layers import Axis, Bases, Factorization, Layer, load_plugin


def drawn(plugin: str | type[Factorization], layer: Layer, **values: int) -> Factorization:
    """A factorization of random numbers."""
    made = (load_plugin(plugin) if isinstance(plugin, str) else plugin)(layer, **values)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


class OfOneRank(Factorization):
    """One axis, and never fitted."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("rank", 1, min(layer.shape)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)

    def fit(self, weight: Tensor, bases: Bases) -> None:
        """Nothing: these are never fitted."""


class Pair(OfOneRank):
    """W = A·B, without a word on what may be dropped."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.left, self.right = self.factor(layer.shape[0], rank), self.factor(rank, layer.shape[1])

    def dense(self) -> Tensor:
        return self.left @ self.right


class RefusesOdd(Pair):
    """Only even ranks are possible."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        if rank % 2:
            raise ValueError("odd")
        super().__init__(layer, rank=rank)


class RefusesFive(Pair):
    def __init__(self, layer: Layer, *, rank: int) -> None:
        if rank == 5:
            raise ValueError("five")
        super().__init__(layer, rank=rank)


class TooLarge(Pair):
    """Whose smaller forms there is no memory for."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        if rank < 5 and torch.get_default_device().type != "meta":
            raise MemoryError
        super().__init__(layer, rank=rank)


class Masked(Pair):
    """Which components are kept is set by hand."""

    mask: Tensor

    def kept(self) -> dict[str, Tensor]:
        return {"rank": self.mask}


class OneMore(Masked):
    """With a slice beside those of the components."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.left = self.factor(layer.shape[0], rank + 1)

    def dense(self) -> Tensor:
        return self.left[:, 1:] @ self.right


class AtLeastTwo(Pair):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("rank", 2, min(layer.shape)),)


class Summed(Pair):
    """W = A·B + Σ of B's rows: a component is not gone when its column of A is zero."""

    def dense(self) -> Tensor:
        return self.left @ self.right + self.right.sum(0)


class Gated(Pair):
    """W = A·diag(g)·B; what a gate closes is gone, whatever A and B are."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.gate = self.factor(rank)

    def dense(self) -> Tensor:
        return (self.left * self.gate.clamp_min(0)) @ self.right

    def fold(self) -> None:
        self.left.mul_(self.gate.clamp_min(0))
        self.gate.fill_(1)

    def kept(self) -> dict[str, Tensor]:
        return {"rank": (self.gate > 0) & (self.left != 0).any(0)}


class Ring(OfOneRank):
    """Two cores in a ring, each with the axis in two modes."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.one, self.other = (self.factor(rank, size, rank) for size in layer.shape)

    def dense(self) -> Tensor:
        return torch.einsum("aob,bia->oi", self.one, self.other)


class Indexed(Pair):
    """A buffer says which column of A each row of B belongs to."""

    places: Tensor

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.register_buffer("places", torch.arange(rank))

    def dense(self) -> Tensor:
        return self.left[:, self.places % self.left.shape[1]] @ self.right


class Cores(OfOneRank):
    """W = A · C, C a tensor of four modes with the components along its last."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        out, inputs, rows, columns = layer.shape
        self.first = self.factor(out, rank)
        self.last = self.factor(inputs, rows, columns, rank)

    def dense(self) -> Tensor:
        return torch.einsum("or,iyxr->oiyx", self.first, self.last)
