"""Step 10 of the data path: the factorized model. All checks come before the first change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real

import torch
from torch import nn

from rank_search.errors import LayerError
from rank_search.layers.bases import Bases
from rank_search.layers.copies import copied
from rank_search.layers.factorization import Factorization, axes_of
from rank_search.layers.fast_paths import step_aside, step_back
from rank_search.layers.fused import channels_last, is_channels_last
from rank_search.layers.kinds import kind_of, weight_in
from rank_search.layers.layer import Layer
from rank_search.layers.opening import layer_in, opened_for, put_at, with_closed
from rank_search.layers.pools import Plugins, check_pools, fit_together, pools_of, share
from rank_search.layers.tied_use import TiedUse
from rank_search.point import Choice, Point


def factorize(
    model: nn.Module,
    point: Point,
    layers: Mapping[str, Layer],
    plugins: Plugins,
    bases: Callable[[str], Bases],
) -> nn.Module:
    """A copy of the model in which each layer is what the point chooses, fitted to its dense weight.

    A layer is replaced wherever the model holds it (see `copied`), not only under its registered names. A module that
    does several operations in one is opened (see `Opened`) where a layer inside it is factorized, and only there.

    Args:
        model: the dense model; it is not changed.
        layers: the layers that may be chosen for, by name (`Inventory.layers`).
        plugins: factorization classes by name.
        bases: gives the bases of a layer's weight, by layer name.

    Raises:
        LayerError: the point names an unknown layer, or values outside an axis' range; nothing is built then.
    """
    check_point(point, layers, plugins)
    model = opened_for(model, [name for name, _ in _factorized(point)])
    forms = _forms(model, point, layers, plugins)
    for names in pools_of(forms):
        weights = [weight_in(_dense(model, name)).detach() for name in names]
        fit_together([forms[name] for name in names], weights, [bases(name) for name in names])
    for name, form in forms.items():
        if form.bias is not None:
            with torch.no_grad():
                form.bias.copy_(_dense(model, name).get_parameter("bias"))
    return _with_forms(model, forms, layers)


def recompose(model: nn.Module, dense: nn.Module, layers: Mapping[str, Layer]) -> nn.Module:
    """The dense model that a factorized one stands for: a copy with `dense()` as the weight of each ordinary layer.

    All else (biases, statistics, other layers) is the factorized model's own; the two compute the same to rounding.
    A layer whose weight the dense model computes from other tensors has it as a parameter.

    Args:
        model: the factorized model; it is not changed.
        dense: the model that it was made from, for the kinds of its layers; it is not changed.
        layers: the layers that may have been chosen for, by name.
    """
    made: dict[str, nn.Module] = {}
    for name in layers:
        factorization = layer_in(model, name)
        if not isinstance(factorization, Factorization):
            continue
        users = [user.name for user in layers[name].users]
        ordinary = dict(zip(users, copied(nn.ModuleList([layer_in(dense, user) for user in users])), strict=True))
        with torch.no_grad():
            weight_in(ordinary[name]).copy_(factorization.dense())
            for user, module in ordinary.items():
                if (bias := layer_in(model, user)._parameters.get("bias")) is not None:
                    module.get_parameter("bias").copy_(bias)
        made |= ordinary
    replaced = with_closed(_replaced(model, made, layers), dense)
    step_back(replaced, dense)
    return replaced


def skeleton(model: nn.Module, point: Point, layers: Mapping[str, Layer], plugins: Plugins) -> nn.Module:
    """The factorized model with factors allocated but not set: load a state dict into it.

    Raises:
        LayerError: as `factorize`.
    """
    check_point(point, layers, plugins)
    model = opened_for(model, [name for name, _ in _factorized(point)])
    return _with_forms(model, _forms(model, point, layers, plugins), layers)


def check_point(point: Point, layers: Mapping[str, Layer], plugins: Plugins) -> None:
    """Refuse a point that does not fit the layers.

    Raises:
        LayerError: an unknown layer, a factorization that is not at hand or does not apply, a missing or
            unknown axis, a value that is no number of its range, or layers of one pool that are not all the same.
    """
    for name, choice in _factorized(point):
        if name not in layers:
            raise LayerError(
                f"The point chooses for layer {name!r}, which the model does not have; there are: {', '.join(layers)}."
            )
        if choice.factorization not in plugins:
            raise LayerError(
                f"Layer {name!r} asks for the factorization {choice.factorization!r}, which the study does not use; "
                f"it uses: dense, {', '.join(plugins)}."
            )
        _check_values(name, choice, layers[name], plugins[choice.factorization])
    check_pools(point, layers, plugins)


def _check_values(name: str, choice: Choice, layer: Layer, plugin: type[Factorization]) -> None:
    axes = {axis.name: axis for axis in axes_of(plugin, layer)}
    if not axes:
        raise LayerError(f"{choice.factorization} does not apply to layer {name!r} of shape {layer.shape}.")
    if set(axes) != set(choice.values):
        raise LayerError(
            f"Layer {name!r} was given {', '.join(choice.values) or 'no values'}; {choice.factorization} has the axes "
            f"{', '.join(axes)}."
        )
    for key, value in choice.values.items():
        if not isinstance(value, Integral if axes[key].integer else Real):
            raise LayerError(
                f"{key} of {choice.factorization} for layer {name!r} is {value!r} ({type(value).__name__}); it must be "
                f"{'a whole number, such as 2' if axes[key].integer else 'a number'}."
            )
        if not axes[key].low <= value <= axes[key].high:
            raise LayerError(
                f"{key} of {choice.factorization} for layer {name!r} is {value}; it must lie in "
                f"[{axes[key].low:g}, {axes[key].high:g}]."
            )


def _forms(model: nn.Module, point: Point, layers: Mapping[str, Layer], plugins: Plugins) -> dict[str, Factorization]:
    """What the point chooses, not set yet, by layer; those of a pool with the factors that they share."""
    made = {
        name: _made_like(_dense(model, name), layers[name], plugins[choice.factorization], choice)
        for name, choice in _factorized(point)
    }
    for names in pools_of(made):
        share([made[name] for name in names])
    return made


def _with_forms(model: nn.Module, forms: Mapping[str, Factorization], layers: Mapping[str, Layer]) -> nn.Module:
    made: dict[str, nn.Module] = {}
    for name, form in forms.items():
        made |= {name: form, **tied_uses(model, layers[name], form)}
    replaced = _replaced(model, made, layers)
    step_aside(replaced)
    return replaced


def _factorized(point: Point) -> list[tuple[str, Choice]]:
    return [(name, choice) for name, choice in point.layers.items() if not choice.is_dense]


def _dense(model: nn.Module, name: str) -> nn.Module:
    module = model.get_submodule(name)
    if kind_of(module) is None:
        raise LayerError(f"Layer {name!r} is {type(module).__name__} already; only a dense model can be factorized.")
    return module


def _made_like(dense: nn.Module, layer: Layer, plugin: type[Factorization], choice: Choice) -> Factorization:
    """A factorization on the dense layer's device, in its mode, trainable exactly if the dense weight is."""
    weight = weight_in(dense)
    factorization = plugin(layer, **choice.values).to(weight.device)
    factorization.train(dense.training)
    factorization.requires_grad_(weight.requires_grad)
    if is_channels_last(weight):
        for parameter in factorization.parameters():
            parameter.data = channels_last(parameter.data)
    return factorization


def tied_uses(model: nn.Module, layer: Layer, form: Factorization) -> dict[str, nn.Module]:
    """What stands in the place of each of the layer's ties, by its name, with its own bias."""
    return {tie.name: _use_like(_dense(model, tie.name), tie, form) for tie in layer.ties}


def _use_like(dense: nn.Module, tie: Layer, form: Factorization) -> TiedUse:
    use = TiedUse(tie, form).train(dense.training)
    if use.bias is not None:
        bias = dense.get_parameter("bias")
        use.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return use


def _replaced(model: nn.Module, made: Mapping[str, nn.Module], layers: Mapping[str, Layer]) -> nn.Module:
    """A copy of the model with these modules, by layer name, in the place of its own."""
    found = copied(model, {model.get_submodule(name): module for name, module in made.items()})
    users = {user.name: user for layer in layers.values() for user in layer.users}
    for name, module in made.items():
        put(found, users[name], module)
    return found


def put(model: nn.Module, layer: Layer, module: nn.Module) -> None:
    """Register a module under every name of a layer."""
    for name in (layer.name, *layer.aliases):
        put_at(model, name, module)
