"""Step 3 of the data path: what in a model can be factorized, and why the rest cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from rank_search.errors import LayerError, TaskError
from rank_search.layers.costs import Cost, Example, count_params, forward, layer_cost, macs_by_module, mean
from rank_search.layers.counting import layer_by_layer
from rank_search.layers.layer import Layer
from rank_search.point import Choice

_WEIGHTED = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
)


@dataclass(frozen=True)
class Skipped:
    """A weighted module that is left as it is, with its own cost, and the reason."""

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: float
    reason: str


@dataclass(frozen=True)
class Inventory:
    """What a model is made of, as far as factorization is concerned.

    Attributes:
        layers: what can be factorized, by dotted name, in the order of the model.
        skipped: weighted modules that cannot be or must not be, each with its reason.
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


def take_inventory(
    model: nn.Module,
    example: Example,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    more: Sequence[Example] = (),
) -> Inventory:
    """List the layers of a model that can be factorized, and the skipped ones with their reasons.

    The model is run once on `example` to learn which input each layer sees. A module that stands under several
    names is one layer with aliases; a weight used by several modules is skipped.

    Args:
        model: the trained model; it is not changed.
        example: what its forward takes: a tensor, or a tuple of tensors.
        more: further examples, where they differ in what they run; MACs are the mean of all.
        include, exclude: globs on dotted names; a layer is taken if some `include` and no `exclude` matches.

    Raises:
        LayerError: a glob matches nothing, or a weight holds NaN or infinity.
        TaskError: the model does not run on the example.
    """
    modules = _weighted_modules(model)
    _check_globs([*include, *exclude], [name for names, _ in modules for name in names])
    users = _users_of_each_weight(model)
    reasons = {names[0]: _reason(names, module, users, include, exclude) for names, module in modules}
    wanted = {names: module for names, module in modules if not reasons[names[0]]}
    examples = (example, *more)
    inputs = _inputs_seen(model, examples, wanted.values())
    layers: dict[str, Layer] = {}
    for names, module in wanted.items():
        if module not in inputs:
            reasons[names[0]] = "its forward is never called; the model may read its weight directly"
            continue
        _check_finite(names[0], module)
        layers[names[0]] = replace(
            Layer.of(module, names[0], names[1:]), inputs=tuple(inputs[module]), examples=len(examples)
        )
    macs = _macs_by_module(model, examples)
    skipped = tuple(
        _skipped(names[0], module, macs.get(names[0], 0), reasons[names[0]])
        for names, module in modules
        if reasons[names[0]]
    )
    return Inventory(layers, skipped, Cost(count_params(model), macs[""]))


def _weighted_modules(model: nn.Module) -> list[tuple[tuple[str, ...], nn.Module]]:
    """Every module that holds a weight of a known kind, with all the names it goes by."""
    names: dict[nn.Module, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _WEIGHTED):
            names[module].append(name)
    return [(tuple(found), module) for module, found in names.items()]


def _users_of_each_weight(model: nn.Module) -> dict[int, list[str]]:
    users: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            users[id(parameter)].append(f"{name}.{key}".lstrip("."))
    return users


def _reason(
    names: tuple[str, ...],
    module: nn.Module,
    users: Mapping[int, list[str]],
    include: Sequence[str],
    exclude: Sequence[str],
) -> str:
    """Why this module is left as it is; empty if it can be factorized."""
    if not _matches(names, include):
        return "no include rule matches it"
    if _matches(names, exclude):
        return "an exclude rule matches it"
    if names[0] == "":
        return "it is the model itself; wrap it in a Sequential to make it replaceable"
    return _reason_of_kind(module) or _reason_of_weight(names[0], module, users)


def _reason_of_kind(module: nn.Module) -> str:
    if type(module) not in (nn.Linear, nn.Conv2d):
        known = isinstance(module, nn.Linear | nn.Conv2d)
        kind = type(module).__name__
        return (
            f"{kind} is a subclass, whose forward may do something else"
            if known
            else f"{kind} is not supported, only Linear and Conv2d are"
        )
    groups = getattr(module, "groups", 1)
    if groups > 1:
        depthwise = groups == module.in_channels
        return (
            "depthwise convolution: each channel's kernel is too small to factorize"
            if depthwise
            else f"grouped convolution ({groups} groups) is not supported"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has forward hooks, which a replacement would lose"
    return ""


def _reason_of_weight(name: str, module: nn.Module, users: Mapping[int, list[str]]) -> str:
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    if weight is None:
        return "its weight is computed from other tensors (weight norm, pruning or another parametrization)"
    if not weight.is_floating_point():
        return f"its weight is of type {weight.dtype}, not floating point"
    others = [user for user in users[id(weight)] if user != f"{name}.weight"]
    return f"its weight is tied to {', '.join(others)}" if others else ""


def _matches(names: Iterable[str], globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for name in names for glob in globs)


def _check_globs(globs: Sequence[str], names: Sequence[str]) -> None:
    for glob in globs:
        if not _matches(names, [glob]):
            raise LayerError(
                f"A layer rule must match at least one layer; {glob!r} matches none of: {', '.join(names)}. "
                "Correct include, exclude or tie under [layers]."
            )


def _inputs_seen(
    model: nn.Module, examples: Sequence[Example], modules: Iterable[nn.Module]
) -> dict[nn.Module, list[tuple[int, ...]]]:
    """The shapes of the inputs of each module in one forward of each example."""
    seen: dict[nn.Module, list[tuple[int, ...]]] = defaultdict(list)

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[module].append(tuple(inputs[0].shape))

    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        for example in examples:
            run_once(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def run_once(model: nn.Module, example: Example) -> object:
    """One forward in evaluation mode without gradients, layer by layer; the model's mode is put back.

    Raises:
        TaskError: the forward raises.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), layer_by_layer():
            return forward(model, example)
    except Exception as error:
        raise TaskError(
            f"The model must run on the task's example; its forward raised {type(error).__name__}: {error}. "
            "Check the task's model() and example()."
        ) from error
    finally:
        model.train(training)


def _macs_by_module(model: nn.Module, examples: Sequence[Example]) -> dict[str, float]:
    """MACs of each module by name, mean of the examples, in evaluation mode; of the whole under the empty name."""
    training = model.training
    model.eval()
    try:
        counts = [macs_by_module(model, example) for example in examples]
    finally:
        model.train(training)
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
    first = _macs_by_module(model, examples[:1])
    differ = any(_macs_by_module(model, [each]) != first for each in examples[1:])
    return tuple(examples) if differ else tuple(examples[:1])


def _skipped(name: str, module: nn.Module, macs: float, reason: str) -> Skipped:
    initialized = [each for each in module.parameters() if not isinstance(each, nn.parameter.UninitializedParameter)]
    params = sum(parameter.numel() for parameter in initialized)
    return Skipped(name, type(module).__name__, _shape(module), params, macs, reason)


def _check_finite(name: str, module: nn.Module) -> None:
    for key, parameter in module.named_parameters(recurse=False):
        if not bool(torch.isfinite(parameter).all()):
            raise LayerError(
                f"Weights must be finite; {name}.{key} holds NaN or infinity. Train the model again, or exclude "
                "the layer ([layers] exclude)."
            )


def _shape(module: nn.Module) -> tuple[int, ...]:
    weight = getattr(module, "weight", None)
    uninitialized = isinstance(weight, nn.parameter.UninitializedParameter)
    return tuple(weight.shape) if isinstance(weight, Tensor) and not uninitialized else ()
