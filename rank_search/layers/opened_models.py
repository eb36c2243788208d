"""Models with everything opened that can be, so that each linear operation in them is a layer with a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.errors import LayerError, TaskError
from rank_search.layers.calls import Example, tensors_of
from rank_search.layers.costs import Cost, count_params
from rank_search.layers.folding import folded
from rank_search.layers.fused import tensor_distance
from rank_search.layers.globs import matches_any
from rank_search.layers.inventory import Inventory, mean_macs_by_module, run_once, take_inventory
from rank_search.layers.kinds import kind_of
from rank_search.layers.layer import Layer
from rank_search.layers.opener import opener_of
from rank_search.layers.opening import is_folded, made_of, with_opened
from rank_search.layers.ordinary import require_ordinary
from rank_search.layers.parts import Parts, cuts_asked_for
from rank_search.layers.reasons import Ties, can_be_folded, reason_of_replacements, refusal_to_open

_CLOSE: Final = 1e-2
"""Of outputs, relative to the largest: far above rounding in half precision, far below a wrong weight."""


def opened_inventory(
    model: nn.Module,
    example: Example,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    more: Sequence[Example] = (),
    split: Sequence[str] = (),
) -> Inventory:
    """The inventory of a model with everything opened that can be; its dense cost is that of the model as it is.

    See `opened` and `take_inventory`, also for what they raise.
    """
    view = opened(model, example, exclude, split)
    found = take_inventory(view, example, include, exclude, more)
    if view is model:
        return found
    macs = mean_macs_by_module(model, (example, *more))
    without = mean_macs_by_module(view, (example, *more))
    layers = {
        name: _with_extra(layer, model, view, macs.get(name, 0) - without.get(name, 0))
        if is_folded(model, name)
        else layer
        for name, layer in found.layers.items()
    }
    return replace(found, layers=layers, dense=Cost(count_params(model), macs[""]))


def _with_extra(layer: Layer, model: nn.Module, view: nn.Module, macs: float) -> Layer:
    """Knowing what its module has beyond the plain one in the view, and does: so many MACs."""
    own, plain = (count_params(each.get_submodule(layer.name)) for each in (model, view))
    return replace(layer, extra_params=own - plain, extra_macs=macs)


def opened(model: nn.Module, example: Example, exclude: Sequence[str] = (), split: Sequence[str] = ()) -> nn.Module:
    """The same model with everything opened that can be; the model itself if that is nothing.

    All parameters have the very numbers of the model's, so what is written there changes the model; but weights that
    it computes from others (weight norm, pruning or another parametrization) are put down as numbers. A module stays
    as it is if the model would not run with it opened, or would not give the same on the example.

    Args:
        model: it is not changed.
        exclude: globs on dotted names of modules that stay as they are.
        split: rules that say which layers are cut into parts (see `RULE`).

    Raises:
        TaskError: the model does not run on the example, is quantized, or has weights that are not set yet.
        LayerError: a layer cannot be cut as a rule says.

    >>> found = opened(nn.Sequential(nn.GRU(3, 2)), torch.zeros(4, 1, 3))
    >>> [name for name, each in found.named_modules() if isinstance(each, nn.Linear)]
    ['0.input_0', '0.recurrent_0']
    """
    require_ordinary(model)
    cuts = _cuts(model, exclude, split)
    roots = _roots(model, [*exclude, *cuts]) | cuts
    if not roots:
        return model
    expected = tensors_of(_outputs(model, example))
    if _gives(view := with_opened(model, roots), example, expected):
        return view
    fit = {name: each for name, each in roots.items() if _gives(with_opened(model, {name: each}), example, expected)}
    if wrong := [name for name in cuts if name not in fit]:
        raise LayerError(
            f"{', '.join(wrong)} cannot be cut into parts: the model does not run so, or gives something else. It may "
            "use the weight otherwise than by the layer's forward. Leave it out of [layers] split."
        )
    return with_opened(model, fit) if fit else model


def _cuts(model: nn.Module, exclude: Sequence[str], split: Sequence[str]) -> dict[str, nn.Module]:
    if not split:
        return {}
    modules = {name: each for name, each in model.named_modules() if kind_of(each) and not matches_any([name], exclude)}
    cuts = cuts_asked_for(list(modules), split)
    for name in cuts:
        if reason := reason_of_replacements(modules[name]):
            raise LayerError(f"{name} cannot be cut into parts: {reason}. Leave it out of [layers] split.")
    return {name: Parts(modules[name], into).train(modules[name].training) for name, into in cuts.items()}


def _roots(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Module]:
    ties = Ties(model)
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if name.startswith(tuple(f"{root}." for root in found)) or matches_any([name], exclude):
            continue
        opener = opener_of(module)
        if opener is not None and not refusal_to_open(module, ties):
            found[name] = made_of(opener, module)
        elif can_be_folded(module, ties):
            found[name] = folded(module)
    return found


def _outputs(model: nn.Module, example: Example) -> object:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return run_once(model, example)


def _gives(model: nn.Module, example: Example, expected: Sequence[Tensor]) -> bool:
    try:
        found = tensors_of(_outputs(model, example))
    except TaskError:
        return False
    pairs = zip(expected, found, strict=False)
    return len(found) == len(expected) and all(tensor_distance(one, other) <= _CLOSE for one, other in pairs)
