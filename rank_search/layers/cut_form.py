"""A factorization cut at smaller values: some of the components of each axis stay, as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from rank_search.basics import Int
from rank_search.layers.components import components, owned, places_of
from rank_search.layers.factorization import Factorization
from rank_search.layers.layer import Layer
from rank_search.layers.settled_form import SettledForm, cut_to, is_same_weight

Kept = Mapping[str, Int[Tensor, " kept"]]
"""By axis, which of its components stay, in ascending order."""


@torch.no_grad()
def cut_form(form: Factorization, kept: Kept, whole: Collection[tuple[str, int]] = frozenset()) -> SettledForm | None:
    """The factorization with these components alone, of the same class with smaller values; None where it refuses them.

    Args:
        form: it is not changed.
        whole: modes of tensors that are not to be cut, by name and mode.

    >>> from rank_search.layers.layer import Layer
    >>> from rank_search.layers.plugins import load_plugin
    >>> form = load_plugin("svd")(Layer("", "linear", (4, 6)), rank=3)
    >>> left = torch.nn.init.normal_(form.left)
    >>> cut = cut_form(form, {"rank": torch.tensor([0, 2])})
    >>> dict(cut.form.values), torch.equal(cut.form.left, form.left[:, [0, 2]])
    ({'rank': 2}, True)
    """
    places = {name: tuple(map(torch.arange, tensor.shape)) for name, tensor in form.state_dict().items()}
    for axis, those in kept.items():
        modes, value = components(form, axis), int(form.values[axis])
        if not modes or any((name, mode) in whole for name in modes for mode in modes[name]):
            return None
        if any(len(places[name][mode]) % value for name in modes for mode in modes[name]):
            return None
        places = {name: _without(own, modes.get(name, ()), those, value) for name, own in places.items()}
    values = {**form.values, **{axis: len(those) for axis, those in kept.items()}}
    smaller = cut_to(form, values, places)
    return None if smaller is None else SettledForm(smaller, places)


def adds_up(form: Factorization, axis: str) -> bool:
    """Whether the weight is a sum over the components of an axis: zeros in the last one do what leaving it out does.

    It is not where a value stands for another weight, as a number of buckets does. Told on random numbers, once for a
    class, a layer and its values. Of one component, and where the factorization refuses to have one less, it is True.
    As costly as two `dense()`.

    >>> from rank_search.layers.layer import Layer
    >>> from rank_search.layers.plugins import load_plugin
    >>> layer = Layer("", "linear", (4, 6))
    >>> adds_up(load_plugin("svd")(layer, rank=3), "rank"), adds_up(load_plugin("buckets")(layer, buckets=9), "buckets")
    (True, False)
    """
    return _adds_up(type(form), form.layer, tuple(form.values.items()), axis)


@lru_cache(maxsize=1024)
@torch.random.fork_rng(devices=[])  # a plugin may draw when it is made, and the answer is drawn but once
@torch.no_grad()
def _adds_up(plugin: type[Factorization], layer: Layer, values: tuple[tuple[str, float], ...], axis: str) -> bool:
    form, count, random = plugin(layer, **dict(values)), int(dict(values)[axis]), torch.Generator().manual_seed(0)
    for parameter in form.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    if count < 2 or (smaller := cut_form(form, {axis: torch.arange(count - 1)})) is None:
        return True
    for factor, mode in owned(form, axis):
        factor.index_fill_(mode, places_of(torch.tensor([count - 1]), count, factor.shape[mode]), 0.0)
    return is_same_weight(form.dense(), smaller.form.dense())


def _without(
    places: tuple[Tensor, ...], modes: Collection[int], kept: Int[Tensor, " kept"], value: int
) -> tuple[Tensor, ...]:
    """What is left of a tensor's modes."""
    return tuple(own[places_of(kept, value, len(own))] if mode in modes else own for mode, own in enumerate(places))
