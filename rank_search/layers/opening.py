"""Layers by name: inside modules that do several operations in one, too, and with weights that are computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from rank_search.errors import LayerError
from rank_search.layers.copies import copied, shared
from rank_search.layers.fast_paths import step_aside
from rank_search.layers.folding import computed_in, folded
from rank_search.layers.kinds import kind_of, weight_in
from rank_search.layers.opener import Opened, opener_of
from rank_search.layers.parts import Parts, cut_into

Roots = Mapping[str, nn.Module]
"""Of the modules that are opened, by name, what stands in their place."""


def opened_for(model: nn.Module, layers: Iterable[str]) -> nn.Module:
    """The same model with those of its modules opened that these layers are inside of; the model itself if none is.

    Weights of these layers that it computes are put down as numbers.

    Raises:
        LayerError: it has no such layer.
    """
    roots: dict[str, nn.Module] = {}
    for name in layers:
        root, inside = _split(model, name)
        if inside and root not in roots:
            roots[root] = _opened(model, root, name)
        elif not inside and is_folded(model, name):
            roots[name] = folded(model.get_submodule(name))
    return with_opened(model, roots) if roots else model


def folded_in(model: nn.Module, layers: Iterable[str]) -> nn.Module:
    """The same model with the weights of these layers put down as numbers where it computes them; else the model."""
    roots = {name: folded(model.get_submodule(name)) for name in layers if is_folded(model, name)}
    return with_opened(model, roots) if roots else model


def layer_in(model: nn.Module, name: str) -> nn.Module:
    """The module of a layer, by its name; of a layer inside a module that is not opened, one with its very numbers.

    Of a layer whose weight the model computes, one with that weight.

    Raises:
        LayerError: there is none.

    >>> layer_in(nn.Sequential(nn.LSTM(3, 2)), "0.recurrent_0")
    Linear(in_features=2, out_features=8, bias=True)
    """
    root, inside = _split(model, name)
    if not inside:
        return folded(model.get_submodule(name)) if is_folded(model, name) else model.get_submodule(name)
    try:
        return _opened(model, root, name).get_submodule(inside)
    except AttributeError as error:
        raise LayerError(f"The model has no layer {name!r}: {error}.") from error


def weight_of(model: nn.Module, layer: str) -> Tensor:
    """The weight of a layer, by its name, without its gradient.

    >>> weight_of(nn.Sequential(nn.Linear(3, 2)), "0").shape
    torch.Size([2, 3])
    """
    return weight_in(layer_in(model, layer)).detach()


def groups_of(model: nn.Module, layer: str) -> int:
    """The groups of a layer, by its name.

    >>> groups_of(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "0")
    2
    """
    module = layer_in(model, layer)
    found = kind_of(module)
    return 1 if found is None else found[1].geometry(module).groups


def is_folded(model: nn.Module, layer: str) -> bool:
    """Whether the model computes the weight of a layer from other tensors, so that it is put down as numbers first."""
    root, inside = _split(model, layer)
    return not inside and bool(computed_in(model.get_submodule(root)))


def _opened(model: nn.Module, root: str, layer: str) -> nn.Module:
    module = model.get_submodule(root)
    made = opened_as(module, layer.removeprefix(f"{root}."))
    if made is None:
        raise LayerError(f"The model has no layer {layer!r}: {root or 'it'} is {type(module).__name__}.")
    return made


def opened_as(module: nn.Module, inside: str) -> Opened | None:
    """The module opened so that there is such a layer inside it; None if nothing opens it."""
    if into := cut_into(inside):
        return Parts(module, into).train(module.training)
    opener = opener_of(module)
    return None if opener is None else made_of(opener, module)


def made_of(opener: type[Opened], module: nn.Module) -> Opened:
    """The module, opened, in its mode."""
    return opener(module).train(module.training)


def _split(model: nn.Module, name: str) -> tuple[str, str]:
    """The name of the last module on the way to a layer that the model has, and the rest of the way."""
    module, path = model, name.split(".")
    for place, part in enumerate(path):
        child = module._modules.get(part)
        if child is None:
            return ".".join(path[:place]), ".".join(path[place:])
        module = child
    return name, ""


def with_opened(model: nn.Module, roots: Roots) -> nn.Module:
    """The model with its own tensors, and these in the place of its modules, wherever it holds them."""
    replaced = {model.get_submodule(name): made for name, made in roots.items()}
    found = shared(model, replaced)
    for name, module in model.named_modules(remove_duplicate=False):
        if module in replaced:
            put_at(found, name, replaced[module])
    step_aside(found)
    return found


def with_closed(model: nn.Module, dense: nn.Module) -> nn.Module:
    """A copy with everything closed that is closed in the dense model; its numbers stay the model's own.

    Args:
        model: all layers in it are ordinary ones; it is not changed.
    """
    closed: dict[nn.Module, nn.Module] = {}
    names: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Opened) and not isinstance(dense.get_submodule(name), Opened):
            if module not in closed:
                closed[module] = _closed(module, dense.get_submodule(name))
            names[name] = closed[module]
    found = copied(model, closed)
    for name, module in names.items():
        put_at(found, name, module)
    return found


def _closed(module: Opened, like: nn.Module) -> nn.Module:
    closed = copied(like)
    view = opened_as(closed, next(name for name, _ in module.named_children()))
    if view is not None:
        view.load_state_dict(module.state_dict())
    return closed.train(module.training)


def put_at(model: nn.Module, name: str, module: nn.Module) -> None:
    """Register a module under a dotted name, unless it is the model itself."""
    parent, _, child = name.rpartition(".")
    if name:
        setattr(model.get_submodule(parent), child, module)
