"""Step 3 of the data path: what in a model can be factorized, and why the rest cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from rank_search.errors import LayerError, TaskError
from rank_search.layers.calls import Example, forward, fresh
from rank_search.layers.costs import Cost, count_params, layer_cost, macs_by_module, mean
from rank_search.layers.counting import layer_by_layer
from rank_search.layers.factorization import Factorization
from rank_search.layers.globs import matches_any
from rank_search.layers.layer import Layer, input_of
from rank_search.layers.looking import in_evaluation
from rank_search.layers.ordinary import require_ordinary
from rank_search.layers.reached import Run, unreached
from rank_search.layers.reasons import Ties, reason_of
from rank_search.layers.tied_layers import tied_groups, tied_to
from rank_search.layers.units import Unit, units
from rank_search.point import Choice


@dataclass(frozen=True)
class Skipped:
    """A module, or a parameter outside any layer, that is left as it is, with its own cost and the reason.

    A parameter that several of them have is counted in the first.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: float
    reason: str


@dataclass(frozen=True)
class Inventory:
    """What a model is made of, as far as factorization is concerned: every parameter is in one of the two lists.

    Attributes:
        layers: what can be factorized, by dotted name, in the order of the model.
        skipped: what cannot be or must not be, each with its reason.
        dense: cost of the whole model as it is.
    """

    layers: Mapping[str, Layer]
    skipped: tuple[Skipped, ...]
    dense: Cost

    @property
    def rest(self) -> Cost:
        """Cost of everything that is not among `layers`."""
        total = self.dense
        for layer in self.layers.values():
            total = total - layer_cost(layer, None, Choice())
        return total

    def folded(self, names: Iterable[str]) -> Inventory:
        """Of the model in which these layers have their weights as parameters, where it computes them."""
        plain = {name: replace(self.layers[name], extra_params=0, extra_macs=0) for name in names}
        dense = self.dense
        for name in plain:
            dense = dense - Cost(self.layers[name].extra_params, self.layers[name].extra_macs)
        return replace(self, layers={**self.layers, **plain}, dense=dense)

    def require_layers(self) -> None:
        """Refuse a model in which there is nothing to factorize.

        Raises:
            LayerError: there is not.
        """
        if self.layers:
            return
        names: dict[str, list[str]] = defaultdict(list)
        for each in self.skipped:
            names[each.reason].append(each.name or each.kind)
        why = "; ".join(f"{reason} ({', '.join(found)})" for reason, found in names.items())
        raise LayerError(f"This model has no layer to factorize: {why or 'it has no parameters'}.")


def take_inventory(
    model: nn.Module,
    example: Example,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    more: Sequence[Example] = (),
) -> Inventory:
    """List the layers of a model that can be factorized, and all else that has parameters, with the reasons.

    The model is run on `example` as it is, to learn which input each layer sees, and once more with a stand-in for each
    layer, to learn whether a replaced layer would run. A module that stands under several names is one layer with
    aliases; modules that have one weight are one layer with ties where a form of it can serve them all (see
    `tied_groups`), and are skipped where it cannot. A bias that modules which are no layers have as their own, too,
    stays theirs, and is counted in the layer.

    Args:
        model: the trained model; it is not changed, but for the lazy layers that its first forward makes ordinary ones.
        example: what its forward takes: a tensor, a tuple by position, or a dictionary by name.
        include, exclude: globs on dotted names, or names; a layer is taken if some `include` and no `exclude` matches.
        more: further examples, where they differ in what they run; MACs are the mean of all.

    Raises:
        LayerError: a glob matches nothing, or a weight holds NaN or infinity.
        TaskError: the model does not run on the example, is quantized, or has weights that are not set yet.
    """
    require_ordinary(model)
    examples = (example, *more)
    run = partial(_run_each, examples=examples)
    if any(isinstance(module, LazyModuleMixin) for module in model.modules()):
        run(model)
    found, ties = units(model), Ties(model)
    _check_globs([*include, *exclude], [name for unit in found for name in unit.names])
    reasons = {unit.name: reason_of(unit, ties, include, exclude) for unit in found}
    wanted = [unit for unit in found if not reasons[unit.name]]
    inputs = _inputs_seen(model, run, [unit.module for unit in wanted])
    reasons |= {unit.name: _reason_of_inputs(inputs.get(unit.module, [])) for unit in wanted}
    groups, torn = tied_groups(wanted, ties, inputs.keys())
    tied = {user.name: name for name, users in groups.items() for user in users}
    reasons |= torn | dict.fromkeys(tied, "")
    taken = [unit for unit in wanted if not reasons[unit.name] and unit.name not in tied]
    found_layers = [_layer(unit, inputs, groups.get(unit.name, ())) for unit in taken]
    layers = {layer.name: replace(layer, examples=len(examples)) for layer in found_layers}
    reasons |= unreached(model, layers, run)
    reasons |= {user: tied_to([f"{name}.weight"]) for user, name in tied.items() if reasons[name]}
    kept = {name: layer for name, layer in layers.items() if not reasons[name]}
    macs = mean_macs_by_module(model, examples)
    rows = [(unit, reasons[unit.name]) for unit in found if reasons[unit.name]]
    return Inventory(kept, _skipped(model, kept.values(), rows, macs), Cost(count_params(model), macs[""]))


_Shape = tuple[int, ...] | None
"""Of an input; None if a transformation such as `vmap` hides it."""


def _reason_of_inputs(seen: Sequence[_Shape]) -> str:
    if not seen:
        return "its forward is never called; the model may read its weight directly"
    return "it is called within a transformation (torch.func), which hides its inputs" if None in seen else ""


def _layer(unit: Unit, seen: Mapping[nn.Module, Sequence[_Shape]], users: Sequence[Unit] = ()) -> Layer:
    _check_finite(unit.name, unit.module)
    shapes = tuple(shape for shape in seen.get(unit.module, ()) if shape is not None)
    ties = tuple(_layer(user, seen) for user in users)
    return replace(Layer.of(unit.module, unit.name, unit.names[1:]), inputs=shapes, ties=ties)


def _check_globs(globs: Sequence[str], names: Sequence[str]) -> None:
    for glob in globs:
        if glob != "*" and not matches_any(names, [glob]):
            raise LayerError(
                f"The layer rule {glob!r} matches none of: {', '.join(names)}. "
                "Correct include, exclude or tie under [layers]."
            )


def _inputs_seen(model: nn.Module, run: Run, modules: Iterable[nn.Module]) -> dict[nn.Module, list[_Shape]]:
    """The shapes of the inputs of each module in one forward of each example."""
    seen: dict[nn.Module, list[_Shape]] = defaultdict(list)

    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = input_of(inputs, named)
        seen[module].append(None if torch._C._functorch.is_functorch_wrapped_tensor(x) else tuple(x.shape))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _run_each(model: nn.Module, examples: Sequence[Example]) -> None:
    for example in examples:
        run_once(model, example)


def run_once(model: nn.Module, example: Example) -> object:
    """One forward in evaluation mode without gradients, layer by layer.

    The model's modes are put back, and the example is not changed.

    Raises:
        TaskError: the forward raises.
    """
    try:
        with torch.no_grad(), in_evaluation(model), layer_by_layer():
            return forward(model, fresh(example))
    except Exception as error:
        raise TaskError(
            f"The model does not run on the task's example: its forward raised {type(error).__name__}: {error}. "
            "Check the task's model() and example()."
        ) from error


def mean_macs_by_module(model: nn.Module, examples: Sequence[Example]) -> dict[str, float]:
    """MACs of each module by name, mean of the examples, in evaluation mode; of the whole under the empty name."""
    with in_evaluation(model):
        counts = [macs_by_module(model, fresh(example)) for example in examples]
    names = {name for each in counts for name in each}
    return {name: mean([each.get(name, 0) for each in counts]) for name in names}


def counted_on(model: nn.Module, examples: Sequence[Example]) -> tuple[Example, ...]:
    """All of the examples if they differ in how much they run anywhere in the model; otherwise the first one alone.

    Raises:
        TaskError: the model does not run on one of them.
    """
    if len(examples) == 1:
        return tuple(examples)
    run_once(model, examples[0])
    first = mean_macs_by_module(model, examples[:1])
    differ = any(mean_macs_by_module(model, [each]) != first for each in examples[1:])
    return tuple(examples) if differ else tuple(examples[:1])


def _skipped(
    model: nn.Module, layers: Iterable[Layer], rows: Iterable[tuple[Unit, str]], macs: Mapping[str, float]
) -> tuple[Skipped, ...]:
    modules = [model.get_submodule(user.name) for layer in layers for user in layer.users]
    counted = {id(parameter) for module in modules for parameter in module.parameters()}
    found: list[Skipped] = []
    for unit, reason in sorted(rows, key=lambda row: not isinstance(row[0].module, Factorization)):
        own = {id(each): each.numel() for each in unit.parameters() if id(each) not in counted}
        counted |= own.keys()
        of_module = 0 if unit.key else macs.get(unit.name, 0)
        found.append(Skipped(unit.name, unit.kind, unit.shape, sum(own.values()), of_module, reason))
    return tuple(found)


def _check_finite(name: str, module: nn.Module) -> None:
    for key, parameter in module.named_parameters(recurse=False):
        if not bool(torch.isfinite(parameter).all()):
            raise LayerError(
                f"{name}.{key} holds NaN or infinity; weights must be finite. Train the model again, or exclude "
                "the layer ([layers] exclude)."
            )
