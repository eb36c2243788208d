"""The sixth law of factorizations: what training has emptied can be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from rank_search.errors import ContractError
from rank_search.layers import Factorization, SettledForm, components, left_of, settled_form, tensor_distance
from rank_search.testing.case import Case, normal

_ROUNDING: Final = 1000  # as in the other laws


def settling(case: Case) -> Iterator[str]:
    """6. Folded, and without its empty components, it stands for the same weight with smaller values, once for all."""
    module = _drawn(case)
    before = module.dense().detach().clone()
    with torch.no_grad():
        module.fold()
    yield from _apart("dense() after fold()", module.dense(), before)
    for each in (module, *_emptied(case)):
        try:
            found = settled_form(each)
        except ContractError as error:
            yield str(error)
            return
        yield from _smaller(case, each, found)


@torch.no_grad()
def _drawn(case: Case) -> Factorization:
    """As training may leave it; nothing has to be fitted for that."""
    module = case.built()
    for parameter in module.parameters():
        parameter.copy_(normal(parameter.shape, parameter.dtype))
    return module


def _emptied(case: Case) -> Iterator[Factorization]:
    """With the middle one of an axis' components full of zeros, and with all of them, in one factor after another."""
    for axis in case.axes:
        for name, modes in components(case.built(), axis.name).items():
            for count in {1, int(case.values[axis.name])}:
                module = _drawn(case)
                if (factor := dict(module.named_parameters()).get(name)) is not None:
                    _empty(factor, modes[0], int(case.values[axis.name]), count)
                    yield module


@torch.no_grad()
def _empty(factor: Tensor, mode: int, value: int, count: int) -> None:
    slices = factor.movedim(mode, 0)
    if value > 0 and len(slices) % value == 0:
        first = (value - count) // 2
        slices.view(-1, value, *slices.shape[1:])[:, first : first + count] = 0


def _smaller(case: Case, module: Factorization, found: SettledForm) -> Iterator[str]:
    small = found.form
    yield from _apart("dense() of the settled form", small.dense(), module.dense())
    for x in case.inputs() if small is not module else ():
        yield from _apart("forward(x) of the settled form", small(x), module(x))
    for axis in case.axes:
        yield from _axis_value(axis.low, axis.name, module, small)
    if settled_form(small).form is not small:
        yield f"with {dict(small.values)} it has settled, and yet settles again"
    shapes = {name: left_of(tensor, found.places[name]).shape for name, tensor in module.state_dict().items()}
    fresh = case.factorization(case.layer, **small.values).state_dict()
    if {name: tensor.shape for name, tensor in fresh.items()} != shapes:
        yield f"what is left of its state dict does not fit {dict(small.values)}: {shapes}"


def _axis_value(low: float, axis: str, module: Factorization, small: Factorization) -> Iterator[str]:
    asked, became = module.values[axis], small.values[axis]
    if not low <= became <= asked:
        yield f"{axis} settles from {asked} to {became}"
    is_own = type(module).kept is not Factorization.kept  # that of the default may be wrong: then nothing is dropped
    if not (is_own and low < asked == became):
        return
    mask = module.kept().get(axis)
    if mask is not None and not bool(mask.all()):
        yield f"kept() leaves out components of {axis}, without which dense() is another weight"


def _apart(what: str, found: Tensor, expected: Tensor) -> Iterator[str]:
    far = tensor_distance(expected.detach(), found.detach(), 1.0)
    if not far <= _ROUNDING * torch.finfo(expected.dtype).eps:
        yield f"{what} is {far:.3g} from what it was before"
