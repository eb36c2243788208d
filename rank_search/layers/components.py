"""An axis owns slices of factors: its components, such as the pairs of vectors that a rank counts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rank_search.basics import Bool, Int

if TYPE_CHECKING:  # the contract asks here for what it gives by default
    from rank_search.layers.factorization import Factorization
    from rank_search.layers.layer import Layer

Modes = Mapping[str, tuple[int, ...]]
"""Modes of tensors, by the tensor's name."""


def components(form: Factorization, axis: str) -> Modes:
    """The modes of each factor along which the components of an axis lie; no entry for a factor without.

    They are the modes that would be larger if the axis were: the factorization is made anew, one higher on it, without
    memory for its weights, and the shapes are compared. Nothing is found where the factorization refuses the value.

    >>> from rank_search.layers.layer import Layer
    >>> from rank_search.layers.plugins import load_plugin
    >>> dict(components(load_plugin("svd")(Layer("", "linear", (4, 6)), rank=2), "rank"))
    {'left': (1,), 'right': (0,)}
    """
    larger = shapes_with(form, {**form.values, axis: form.values[axis] + 1}) or {}
    changed = {
        name: tuple(mode for mode, size in enumerate(tensor.shape) if size != larger[name][mode])
        for name, tensor in form.state_dict().items()
        if name in larger and len(larger[name]) == tensor.dim()
    }
    return {name: modes for name, modes in changed.items() if modes}


def shapes_with(form: Factorization, values: Mapping[str, float]) -> Mapping[str, torch.Size] | None:
    """The shapes of its state dict if it were made with other values; None where it refuses them.

    >>> from rank_search.layers.layer import Layer
    >>> from rank_search.layers.plugins import load_plugin
    >>> dict(shapes_with(load_plugin("svd")(Layer("", "linear", (4, 6), bias=False), rank=2), {"rank": 3}))
    {'left': torch.Size([4, 3]), 'right': torch.Size([3, 6])}
    """
    return _shapes_with(type(form), form.layer, tuple(values.items()))


@lru_cache(maxsize=1024)  # a trial asks again and again, and each answer takes a module
def _shapes_with(
    factorization: type[Factorization], layer: Layer, values: tuple[tuple[str, float], ...]
) -> Mapping[str, torch.Size] | None:
    try:
        with torch.device("meta"):
            made = factorization(layer, **dict(values))
    except Exception:  # noqa: BLE001 - a plugin may refuse values in whatever way it likes
        return None
    return {name: tensor.shape for name, tensor in made.state_dict().items()}


def alive(form: Factorization, axis: str) -> Bool[Tensor, " value"] | None:
    """Which components of an axis have no slice of zeros in any factor; None if the axis owns no slices.

    >>> from rank_search.layers.layer import Layer
    >>> from rank_search.layers.plugins import load_plugin
    >>> form = load_plugin("svd")(Layer("", "linear", (4, 6)), rank=2)
    >>> _ = [torch.nn.init.ones_(each) for each in form.parameters()]
    >>> with torch.no_grad():
    ...     _ = form.left[:, 0].zero_()
    >>> alive(form, "rank").tolist()
    [False, True]
    """
    value, found = int(form.values[axis]), owned(form, axis)
    if not found:
        return None
    return torch.stack([_nonzero(factor, mode).view(-1, value).any(0) for factor, mode in found]).all(0)


def owned(form: Factorization, axis: str) -> tuple[tuple[nn.Parameter, int], ...]:
    """The parameters in which an axis owns slices, each with a mode along which they lie; none where none are known.

    A mode has a slice of each component, or a block of such slices for each group.

    >>> from rank_search.layers.layer import Layer
    >>> from rank_search.layers.plugins import load_plugin
    >>> form = load_plugin("svd")(Layer("", "linear", (4, 6)), rank=2)
    >>> [(tuple(factor.shape), mode) for factor, mode in owned(form, "rank")]
    [((4, 2), 1), ((2, 6), 0)]
    """
    value, factors = int(form.values[axis]), dict(form.named_parameters())
    found = [
        (factors[name], mode) for name, modes in components(form, axis).items() if name in factors for mode in modes
    ]
    if value < 1 or any(factor.shape[mode] % value for factor, mode in found):
        return ()
    return tuple(found)


def _nonzero(factor: Tensor, mode: int) -> Tensor:
    """Which slices along the mode are not all zero."""
    return (factor.detach() != 0).movedim(mode, 0).flatten(1).any(1).cpu()


def places_of(kept: Int[Tensor, " kept"], value: int, size: int) -> Int[Tensor, " places"]:
    """Where the slices of these components, out of `value`, are in a mode of some size: once in each block of it.

    A factor of a grouped layer has a block of slices for each group, one after the other.

    >>> places_of(torch.tensor([0, 2]), value=3, size=6).tolist()
    [0, 2, 3, 5]
    """
    blocks = torch.arange(0, size, value)
    return (blocks[:, None] + kept).flatten()
