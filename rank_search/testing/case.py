"""One factorization of one layer with one choice of axis values: what a law looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from rank_search.layers import Axis, Bases, DirectBases, Factorization, Layer, channels_last

_SEED = 20


class Case:
    """A factorization class, a layer it applies to, and a value for each of its axes.

    Attributes:
        factorization, layer, values: as said.
        axes: what the factorization names for the layer, in the order of `values`.
        equality: whether its fit claims to reach the spectrum bound.
    """

    def __init__(
        self,
        factorization: type[Factorization],
        layer: Layer,
        axes: tuple[Axis, ...],
        values: dict[str, float],
        equality: bool = False,
    ) -> None:
        self.factorization = factorization
        self.layer = layer
        self.axes = axes
        self.values = values
        self.equality = equality

    @cached_property
    def weight(self) -> Tensor:
        """A weight with no structure at all, the same every time. Laws that risk it take a clone."""
        return normal(self.layer.shape, self.layer.dtype)

    @cached_property
    def moment(self) -> Tensor:
        """The second moment of inputs that depend on each other, fewer than there are columns.

        With groups of each, of one-hot inputs its diagonal.
        """
        size, groups = self.weight[0].numel(), self.layer.groups
        if self.layer.one_hot:
            return normal((size,), torch.float32).relu()
        drawn = normal((size // 2 + 1, size), torch.float64)
        if groups > 1:
            drawn = normal((groups, size // 2 + 1, size), torch.float64)
        inputs = (drawn + drawn.roll(1, -1)).relu()
        return (inputs.mT @ inputs / inputs.shape[-2]).to(torch.float32)

    def bases(self, weight: Tensor, moment: Tensor | None = None) -> DirectBases:
        """Of a weight in the place of the layer's."""
        return DirectBases(weight, moment, groups=self.layer.groups)

    def built(self) -> Factorization:
        """Fresh: each parameter full of NaN, so that what stays unset is seen; the bias is all ones."""
        module = self.factorization(self.layer, **self.values)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(torch.nan)
            if module.bias is not None:
                module.bias.fill_(1.0)
        return module

    def fitted(self, weight: Tensor | None = None, bases: Bases | None = None) -> Factorization:
        """Fitted under a fixed rng seed, to `weight` if given."""
        target = self.weight.clone() if weight is None else weight
        module = self.built()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_SEED)  # that of every device would be a hundred times slower
            module.fit(target, self.bases(target) if bases is None else bases)
        return module

    def in_channels_last(self) -> Factorization:
        """Fitted as in a network in channels-last memory: the factors and the weight are in it."""
        module, weight = self.built(), channels_last(self.weight.clone())
        for parameter in module.parameters():
            parameter.data = channels_last(parameter.data)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_SEED)
            module.fit(weight, self.bases(weight))
        return module

    def moved(self, fitted: Factorization | None = None) -> Factorization:
        """Fitted and then moved away in every parameter, as training does."""
        module = self.fitted() if fitted is None else fitted
        with torch.no_grad():
            for parameter in module.parameters():
                scale = parameter.abs().mean() + 0.1
                parameter.add_(scale * normal(parameter.shape, parameter.dtype))
        return module

    @property
    def has_formats(self) -> bool:
        """Whether its weight can be in channels-last memory."""
        return len(self.layer.shape) in (4, 5)

    def inputs(self) -> Iterator[Tensor]:
        """Every input of the layer; images in both memory formats."""
        for shape in self.layer.inputs:
            x = self.layer.inputs_like(normal(shape, self.layer.dtype))
            yield x
            if len(shape) in (4, 5):
                yield channels_last(x)


def normal(shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """Standard normal numbers, the same for the same shape."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(dtype)


def axis_values(axes: tuple[Axis, ...]) -> list[dict[str, float]]:
    """Every combination of lowest and highest value, and the middle of all axes; each once."""
    ends = product(*((axis.low, axis.high) for axis in axes))
    middle = tuple(
        axis.low + (axis.high - axis.low) // 2 if axis.integer else (axis.low + axis.high) / 2 for axis in axes
    )
    return [dict(zip((axis.name for axis in axes), values, strict=True)) for values in dict.fromkeys([*ends, middle])]
