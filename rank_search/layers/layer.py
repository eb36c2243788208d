"""One layer that can be factorized: its geometry, and its operation with any weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from rank_search.errors import LayerError
from rank_search.layers.kinds import kind_named, kind_of, layer_kinds

Pair = tuple[int, int]

_Each = TypeVar("_Each", int, Pair)

_NEWER: Final = ("groups", "output_padding")

Unfolding = Callable[[Tensor], Tensor]
"""A rearrangement of a layer's weight, or of one block of a grouped layer's, into a matrix."""


@dataclass(frozen=True)
class Layer:
    """The geometry of a layer, without its weights.

    Attributes:
        name: dotted name in the model; `aliases` are further names of the same module.
        kind: name of its `LayerKind`: `"conv2d"`, `"linear"`, …
        shape: shape of the dense weight: out × in, for convolutions × kernel, such as kernel height × kernel width;
            with groups out × in/groups.
        bias: whether it adds one.
        stride, dilation: one for each dimension of the kernel, such as (rows, columns); (1, 1) for linear layers.
        padding: (before, after) for each dimension, such as ((top, bottom), (left, right)), in pixels; `"same"` is
            resolved to these numbers.
        padding_mode: as in `torch.nn.Conv2d`.
        inputs: shape of each input seen in one forward of the task's example (several if called several times).
        dtype: of the weight.
        examples: how many examples the inputs are those of.
        output_padding: of a transposed convolution, one for each dimension, such as (0, 0); () for all else.
        groups: so many blocks has the weight, one below the other, each for its own inputs and outputs.
        padding_idx: of a layer of one-hot inputs, the one through which no gradient goes, as in `torch.nn.Embedding`.
        ties: further modules that have this layer's weight as theirs, each as a layer with its own name and inputs:
            some look up its rows, others are of the same geometry. Whatever stands for the layer serves them, too.
        pool: the layers that it is tied to by `[layers] tie`, itself among them, in order; () for a layer by itself,
            and where no factorization asks for it (see `PooledFactorization`).
        place: its own in the pool.
        extra_params, extra_macs: what the dense layer has, and does, beyond a plain one, as it computes its weight (see
            `folded`). It is gone where the layer is factorized.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    bias: bool = True
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[Pair, ...] = ((0, 0), (0, 0))
    padding_mode: str = "zeros"
    dilation: tuple[int, ...] = (1, 1)
    inputs: tuple[tuple[int, ...], ...] = ()
    aliases: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32
    examples: int = field(default=1, repr=False)  # what is kept under a layer's text does not depend on these
    padding_idx: int | None = field(default=None, repr=False)
    ties: tuple[Layer, ...] = field(default=(), repr=False)
    groups: int = field(default=1, repr=False)
    output_padding: tuple[int, ...] = field(default=(), repr=False)
    pool: tuple[Layer, ...] = field(default=(), repr=False, hash=False)  # which would be that of all its layers
    place: int = field(default=0, repr=False)
    extra_params: int = field(default=0, repr=False)
    extra_macs: float = field(default=0, repr=False)

    def __repr__(self) -> str:
        """Numbers are kept under this text: what is newer than they are is shown only where there is any."""
        shown = [each for each in fields(self) if each.repr or each.name in _NEWER]
        said = [each for each in shown if each.repr or getattr(self, each.name) != each.default]
        return f"Layer({', '.join(f'{each.name}={getattr(self, each.name)!r}' for each in said)})"

    @classmethod
    def of(cls, module: nn.Module, name: str = "", aliases: tuple[str, ...] = ()) -> Layer:
        """Read the geometry off a module.

        Raises:
            LayerError: it is of no kind that is installed, or its kind refuses it.
        """
        found = kind_of(module)
        refusal = f"only {_known()} can be factorized" if found is None else found[1].refusal(module)
        if found is None or refusal:
            raise LayerError(
                f"Layer {name!r} is {type(module).__name__}; {refusal}. "
                "Exclude it in the study file ([layers] exclude)."
            )
        return replace(found[1].geometry(module), kind=found[0], name=name, aliases=aliases)

    @property
    def users(self) -> tuple[Layer, ...]:
        """The layer and its ties: all that uses its weight."""
        return (self, *self.ties)

    @property
    def members(self) -> tuple[Layer, ...]:
        """The layers of its pool; of a layer by itself that one."""
        return self.pool or (self,)

    @property
    def out_features(self) -> int:
        """Number of output channels."""
        return self.shape[0]

    @property
    def in_features(self) -> int:
        """Number of input channels, those of all groups."""
        return self.shape[1] * self.groups

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel, such as (rows, columns); (1, 1) where there is none."""
        return self.shape[2:] or (1, 1)

    @property
    def channels(self) -> int:
        """The dimension of the channels in its outputs, counted from the end."""
        return kind_named(self.kind).channels(self)

    @property
    def one_hot(self) -> bool:
        """Whether its inputs are whole numbers, each standing for the unit vector of that place."""
        return kind_named(self.kind).one_hot()

    def inputs_like(self, numbers: Tensor) -> Tensor:
        """Inputs of the shape of these numbers: they themselves, or whole numbers made of them.

        >>> Layer("", "embedding", (2, 7)).inputs_like(torch.tensor([0.25, -1.5]))
        tensor([5, 2])
        """
        if not self.one_hot:
            return numbers
        if numbers.is_meta:
            return numbers.new_zeros(numbers.shape, dtype=torch.long)
        return (numbers.abs() * 1000).long() % self.in_features

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int | None = None) -> Tensor:
        """Apply the layer's operation (its stride, padding and dilation) with another weight.

        The weight may have any channel numbers, with as many groups as the layer has, or for convolutions as many as
        said: `groups` = its channels makes it depthwise.
        """
        return kind_named(self.kind).operate(self, x, weight, bias, self.groups if groups is None else groups)

    def mix(self, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """Mix channels: out × in matrix applied at every position (a 1×1 convolution, or a linear map).

        With groups the matrix is a block for each, out × in/groups.
        """
        return kind_named(self.kind).mix(self, x, matrix, bias)

    def columns(self, x: Tensor, most: int) -> Tensor:
        """What the layer's weight is multiplied with: one row for each position, at most about `most`.

        Where inputs are one-hot, the place of the one in each row instead.

        >>> Layer("", "linear", (1, 2)).columns(torch.zeros(3, 5, 2), most=100).shape
        torch.Size([15, 2])
        """
        return kind_named(self.kind).columns(self, x, most)

    @property
    def is_plain(self) -> bool:
        """Whether its weight is a matrix, or of an ordinary two-dimensional convolution: no groups, not transposed."""
        return len(self.shape) in (2, 4) and self.groups == 1 and not self.output_padding and not self.one_hot

    def by_group(self, rows: Tensor) -> Tensor:
        """Rows, those of one group after those of another, as a stack: groups × rows × …; without groups as they are.

        >>> Layer("", "conv1d", (4, 3, 5), groups=2).by_group(torch.zeros(4, 15)).shape
        torch.Size([2, 2, 15])
        """
        return rows if self.groups == 1 else rows.view(self.groups, -1, *rows.shape[1:])

    def as_kept(self, weight: Tensor) -> Tensor:
        """A weight, out × in, then the kernel, as the layer's module keeps its own."""
        return kind_named(self.kind).as_kept(weight)

    def along_rows(self) -> Layer:
        """The same layer acting on rows only, the kernel's first dimension: what it does along others is taken away."""
        return self._along(rows=True)

    def along_columns(self) -> Layer:
        """The same layer acting on columns only, all dimensions but the first."""
        return self._along(rows=False)

    def _along(self, rows: bool) -> Layer:
        def kept(given: tuple[_Each, ...], nothing: _Each) -> tuple[_Each, ...]:
            return tuple(each if (place == 0) is rows else nothing for place, each in enumerate(given))

        return replace(
            self,
            stride=kept(self.stride, 1),
            padding=kept(self.padding, (0, 0)),
            dilation=kept(self.dilation, 1),
            output_padding=kept(self.output_padding, 0),
        )


def input_of(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """What a layer was called with, as a hook sees it: its input may be named."""
    found: Tensor = inputs[0] if inputs else named["input"]
    return found


def _known() -> str:
    return ", ".join(sorted(own.__name__ for kind in layer_kinds().values() for own in kind.classes()))
