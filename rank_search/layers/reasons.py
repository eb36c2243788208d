"""Why a module is left as it is, as far as that can be seen without running the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from rank_search.layers.folding import computed_in, folded, other_hooks
from rank_search.layers.globs import matches_any
from rank_search.layers.kinds import kind_of, resembles_a_layer, weight_in
from rank_search.layers.opener import opener_of
from rank_search.layers.overlap import Place, overlap, place_of
from rank_search.layers.units import Unit

_COMPUTED: Final = "its {} is computed from other tensors (weight norm, pruning or another parametrization)"
_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Ties:
    """Which parameters and buffers of a model are the same, or lie in the same memory."""

    def __init__(self, model: nn.Module) -> None:
        self._users: dict[int, list[tuple[Place, nn.Module, str, Tensor]]] = defaultdict(list)
        for name, module in model.named_modules():
            for key, tensor in _own(module).items():
                for place in place_of(tensor):
                    self._users[place[0]].append((place, module, f"{name}.{key}".lstrip("."), tensor))

    def others(self, module: nn.Module, tensor: Tensor) -> list[str]:
        """The names of what other modules keep where this tensor of the module lies."""
        return [
            name
            for place in place_of(tensor)
            for other, owner, name, _ in self._users[place[0]]
            if owner is not module and overlap(place, other)
        ]

    def outside(self, module: nn.Module) -> list[str]:
        """The names of what lies where the tensors of a module and of those inside it lie, and is none of theirs."""
        inside = {*module.modules()}
        tensors = [tensor for each in inside for tensor in _own(each).values()]
        return [
            name
            for tensor in tensors
            for place in place_of(tensor)
            for other, owner, name, _ in self._users[place[0]]
            if owner not in inside and overlap(place, other)
        ]

    def sharing(self, module: nn.Module) -> list[nn.Module]:
        """The other modules that have this one's very weight as their own; none if anything else lies there, too."""
        weight = module._parameters.get("weight")
        found = [
            (owner, tensor is weight and owner._parameters.get("weight") is weight)
            for place in ([] if weight is None else place_of(weight))
            for other, owner, _, tensor in self._users[place[0]]
            if owner is not module and overlap(place, other)
        ]
        return [owner for owner, is_own in found if is_own] if all(is_own for _, is_own in found) else []

    def lends_bias(self, module: nn.Module) -> bool:
        """Whether others have this module's very bias as their own parameter, none of which is a layer, and no more.

        What stands for the module can have that parameter, too, so that it stays the others' (see `copied`).
        """
        bias = module._parameters.get("bias")
        return bias is not None and all(
            tensor is bias and kind_of(owner) is None and opener_of(owner) is None
            for place in place_of(bias)
            for other, owner, _, tensor in self._users[place[0]]
            if owner is not module and overlap(place, other)
        )


def _own(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def reason_of(unit: Unit, ties: Ties, include: Sequence[str], exclude: Sequence[str]) -> str:
    """Why this unit is left as it is; empty if it may be factorized."""
    module = unit.module
    if not matches_any(unit.names, include):
        return "no include rule matches it"
    if matches_any(unit.names, exclude):
        return "an exclude rule matches it"
    if unit.key:
        return f"it is a parameter of {type(module).__name__} itself, not the weight of a layer"
    if reason := _reason_of_parametrization(module) or _reason_of_fused(module, ties) or _reason_of_kind(unit):
        return reason
    if unit.name == "":
        return "it is the model itself; wrap it in a Sequential to make it replaceable"
    return _reason_of_extras(module) or _reason_of_tensors(module, ties)


def _reason_of_parametrization(module: nn.Module) -> str:
    if is_parametrized(module):
        return _COMPUTED.format(" and ".join(module.parametrizations))  # type: ignore[arg-type]
    is_computed = kind_of(module) is not None and module._parameters.get("weight") is None
    return _COMPUTED.format("weight") if is_computed else ""


def _reason_of_fused(module: nn.Module, ties: Ties) -> str:
    """Of what would have been opened, if it could be."""
    if opener_of(module) is None:
        return ""
    return refusal_to_open(module, ties) or (
        "it is one operation; with a layer for each matrix in it the model does not run, or gives something else"
    )


def refusal_to_open(module: nn.Module, ties: Ties) -> str:
    """Why a module cannot be opened, as far as that can be seen without running the model; empty if it can be."""
    opener = opener_of(module)
    if opener is None:
        return f"nothing that is installed opens {type(module).__name__}"
    for each in module.modules():
        if reason := _reason_of_parametrization(each) or reason_of_replacements(each):
            return reason
    if others := ties.outside(module):
        return f"some of its weights are tied to {', '.join(others)}"
    return opener.refusal(module)


def can_be_folded(module: nn.Module, ties: Ties) -> bool:
    """Whether a module would be a layer with what it computes put down as numbers, and nothing would be lost."""
    computed = computed_in(module)
    if not computed or not {*computed} <= {"weight", "bias"} or other_hooks(module) or ties.outside(module):
        return False
    plain = folded(module)
    return kind_of(plain) is not None and not any(getattr(module, hooks) for hooks in _HOOKS if "pre" not in hooks)


def _reason_of_kind(unit: Unit) -> str:
    module, kind = unit.module, unit.kind
    if isinstance(module, torch.jit.ScriptModule):
        return f"{kind} is scripted (torch.jit), so that nothing in it can be replaced"
    if (found := kind_of(module)) is not None:
        return found[1].refusal(module)
    if resembles_a_layer(module):
        return f"{kind} is a subclass that changes what it inherits, and may compute something else"
    if all(parameter.dim() < 2 for parameter in unit.parameters()):
        return f"{kind} has no matrix that could be factorized"
    return f"{kind} is not supported, as no installed kind of layer takes it"


def _reason_of_extras(module: nn.Module) -> str:
    """What hangs on the module, and would be lost with it."""
    if reason := reason_of_replacements(module):
        return reason
    held = [key for key in _own(module) if key not in ("weight", "bias")] + [key for key, _ in module.named_children()]
    return f"it holds {', '.join(held)}, which a replacement would lose" if held else ""


def reason_of_replacements(module: nn.Module) -> str:
    """Of what hangs on a module beside its tensors, and would be lost if another stood in its place."""
    if any(getattr(module, hooks, None) for hooks in _HOOKS):
        return "it has hooks, which a replacement would lose"
    if "forward" in vars(module):
        return "its forward has been set to another function, which a replacement would lose"
    return ""


def _reason_of_tensors(module: nn.Module, ties: Ties) -> str:
    weight = module.get_parameter("weight")
    if weight.dtype not in _DTYPES:
        return f"its weight is of type {weight.dtype}, not floating point"
    if weight.numel() == 0:
        return "it has no outputs" if weight_in(module).shape[0] == 0 else "it has no inputs"
    may_be_shared = {"weight": ties.sharing, "bias": ties.lends_bias}
    for key, tensor in module.named_parameters(recurse=False):
        if (others := ties.others(module, tensor)) and not may_be_shared[key](module):
            return f"its {key} is tied to {', '.join(others)}"
    return ""
