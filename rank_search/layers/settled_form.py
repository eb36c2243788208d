"""What training has emptied is dropped: a smaller factorization that stands for the same weight."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rank_search.basics import Bool, Float
from rank_search.errors import ContractError
from rank_search.layers.components import components, places_of, shapes_with
from rank_search.layers.factorization import Axis, Factorization, axes_of
from rank_search.layers.fused import channels_last, is_channels_last
from rank_search.layers.plugins import plugin_errors

Places = Mapping[str, tuple[Tensor, ...]]
"""For each tensor of a state dict, which places are left in each of its modes."""

_ROUNDING = 1000  # differences up to this many times the machine's precision, relative to the largest number
_ROUNDING_OF_16_BITS = 4  # of which a thousand would be more than the largest number itself
_COARSE = 1e-4  # a precision between those of 16 and of 32 bits


@dataclass(frozen=True)
class SettledForm:
    """A factorization without its empty components.

    Attributes:
        form: the smaller one, or the very one that was given.
        places: what is left of each tensor.
    """

    form: Factorization
    places: Places


@torch.no_grad()
def settled_form(
    form: Factorization, round_to: int = 1, whole: Collection[tuple[str, int]] = frozenset()
) -> SettledForm:
    """The factorization without the components that `kept` leaves out, of the same class with smaller values.

    Only as far as it stands for the same weight (to rounding): an axis without which it would not is left as it is. At
    least one component stays on each axis, if all are empty, too, and as many as its range begins with; where the
    factorization refuses a value, or it is no multiple of `round_to`, empty ones stay up to the next value above.

    Args:
        form: trained, and folded; it is not changed.
        round_to: values are multiples of it.
        whole: modes of tensors that are not to be cut, by name and mode.

    Raises:
        ContractError: `kept` raises, or gives something else than a mask for an axis.
    """
    places = {name: tuple(map(torch.arange, tensor.shape)) for name, tensor in form.state_dict().items()}
    while (found := _smaller(form, round_to, whole)) is not None:
        form, cut = found.form, found.places
        places = {name: tuple(all_[left] for all_, left in zip(places[name], cut[name], strict=True)) for name in cut}
    return SettledForm(form, places)


def left_of(tensor: Tensor, places: tuple[Tensor, ...]) -> Tensor:
    """What is left of a tensor, in its memory format.

    >>> left_of(torch.arange(6).view(2, 3), (torch.tensor([1]), torch.tensor([0, 2])))
    tensor([[3, 5]])
    """
    left = tensor
    for mode, kept in enumerate(places):
        if len(kept) < left.shape[mode]:
            left = left.index_select(mode, kept.to(left.device))
    return channels_last(left) if is_channels_last(tensor) else left


def _smaller(form: Factorization, round_to: int, whole: Collection[tuple[str, int]]) -> SettledForm | None:
    """The first axis smaller on which anything can be dropped, or None where there is none."""
    masks = _masks(form)
    for axis in axes_of(type(form), form.layer):
        mask = masks.get(axis.name)
        if axis.integer and mask is not None and not mask.all():
            found = _without_empty(form, axis, mask.cpu(), round_to, whole)
            if found is not None:
                return found
    return None


def _masks(form: Factorization) -> Mapping[str, Bool[Tensor, " value"]]:
    """What the form says is kept, one truth value for each component of an axis."""
    with plugin_errors(type(form), "kept()", form.layer):
        found = form.kept()
    for axis, mask in found.items():
        value = form.values.get(axis)
        if mask.dtype != torch.bool or tuple(mask.shape) != (value,):
            raise ContractError(
                f"{type(form).__name__}.kept() has {list(mask.shape)} {mask.dtype} for {axis}, not a mask of its "
                f"{value} components. Give a truth value for each of them; leave an axis out that has none."
            )
    return found


def _without_empty(
    form: Factorization, axis: Axis, mask: Bool[Tensor, " value"], round_to: int, whole: Collection[tuple[str, int]]
) -> SettledForm | None:
    """One axis smaller, or None where nothing can be dropped on it."""
    modes, value, state = components(form, axis.name), int(form.values[axis.name]), form.state_dict()
    cut = [(name, mode) for name in modes for mode in modes[name]]
    if any((name, mode) in whole or state[name].shape[mode] % value for name, mode in cut):
        return None
    for fewer in _allowed(axis, int(mask.sum()), value, round_to):
        kept = torch.argsort(~mask, stable=True)[:fewer].sort().values
        places = {
            name: tuple(
                places_of(kept, value, size) if mode in modes.get(name, ()) else torch.arange(size)
                for mode, size in enumerate(tensor.shape)
            )
            for name, tensor in state.items()
        }
        smaller = cut_to(form, {**form.values, axis.name: fewer}, places)
        if smaller is not None:
            return SettledForm(smaller, places) if _same(form.dense(), smaller.dense()) else None
    return None


def _allowed(axis: Axis, alive: int, value: int, round_to: int) -> Iterator[int]:
    """Values below this one that hold what is alive, from the smallest up."""
    least = max(alive, 1, math.ceil(axis.low))
    yield from range(round_to * math.ceil(least / round_to), value, round_to)


def cut_to(form: Factorization, values: Mapping[str, float], places: Places) -> Factorization | None:
    """The factorization with other values, and what is left of the tensors; None if it refuses, or they do not fit."""
    left = {name: left_of(tensor, places[name]) for name, tensor in form.state_dict().items()}
    if shapes_with(form, values) != {name: tensor.shape for name, tensor in left.items()}:
        return None
    like = next((each for each in left.values() if each.is_floating_point()), None)
    smaller = type(form)(form.layer, **values)
    smaller = smaller if like is None else smaller.to(like)
    smaller.load_state_dict(left)
    for old, new in zip(form.parameters(), smaller.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
        new.data = channels_last(new.data) if is_channels_last(old) else new.data
    return smaller.train(form.training)


def _same(one: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"]) -> bool:
    if one.shape != other.shape:
        return False
    precision = torch.finfo(one.dtype).eps
    allowed = precision * (_ROUNDING if precision < _COARSE else _ROUNDING_OF_16_BITS) * one.abs().max()
    return bool((one - other).abs().max() <= allowed)
