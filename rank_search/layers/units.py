"""What a model's parameters belong to: every parameter is in a module's row, or in one of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

WEIGHTED: Final = (
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
"""Modules with a row of their own, whether or not their weight is a parameter."""


@dataclass(frozen=True)
class Unit:
    """A module that holds parameters, with all the names it goes by, or one parameter of a module that holds modules.

    Attributes:
        key: the parameter's name in the module, if it is one parameter; else empty.
    """

    names: tuple[str, ...]
    module: nn.Module
    key: str = ""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def kind(self) -> str:
        name = str(getattr(self.module, "original_name", type(self.module).__name__))  # of a scripted module
        return "Parameter" if self.key else name

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight; of the only parameter, if there is no weight; else ()."""
        own = self.parameters()
        weight = self.module.get_parameter(self.key) if self.key else getattr(self.module, "weight", None)
        weight = own[0] if weight is None and len(own) == 1 else weight
        return tuple(weight.shape) if isinstance(weight, Tensor) else ()

    def parameters(self) -> tuple[nn.Parameter, ...]:
        if self.key:
            return (self.module.get_parameter(self.key),)
        return tuple(self.module.parameters(recurse=_is_whole(self.module)))


def units(model: nn.Module) -> list[Unit]:
    """Every unit of a model, in the order of its modules."""
    names: dict[tuple[nn.Module, str], list[str]] = defaultdict(list)
    for name, module in _outside_whole(model):
        for key in _keys(module):
            names[module, key].append(".".join(part for part in (name, key) if part))
    return [Unit(tuple(found), module, key) for (module, key), found in names.items()]


def _outside_whole(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules by all of their names, without what is inside a whole."""
    wholes: list[str] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if not any(name.startswith(whole) for whole in wholes):
            yield name, module
            wholes += [f"{name}." if name else ""] if _is_whole(module) else []


def _keys(module: nn.Module) -> list[str]:
    """The module itself (an empty key), its parameters one by one, or nothing."""
    own = [key for key, _ in module.named_parameters(recurse=False)]
    if isinstance(module, WEIGHTED) or _is_whole(module) or (own and not any(module.children())):
        return [""]
    return own


def _is_whole(module: nn.Module) -> bool:
    """Whether the modules inside have no life of their own."""
    return isinstance(module, nn.MultiheadAttention) or is_parametrized(module)
