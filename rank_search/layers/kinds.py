"""Finding kinds of layers, by entry point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from torch import Tensor, nn

from rank_search.errors import LayerError
from rank_search.layers.entries import entries_of, loaded_class
from rank_search.layers.kind import LayerKind

GROUP: Final = "rank_search.layers"

_HARMLESS: Final = {
    *("__init__", "reset_parameters", "extra_repr", "__repr__", "__constants__"),
    *("__doc__", "__module__", "__annotations__", "__dict__", "__weakref__", "__parameters__", "__orig_bases__"),
    *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl", "__slots__"),
}
"""What a subclass may have of its own, and compute the same."""


@lru_cache(maxsize=1)
def layer_kinds() -> Mapping[str, LayerKind]:
    """Every installed kind by name, sorted by name.

    Raises:
        BrokenPluginError: one does not load.
        ContractError: one is no concrete `LayerKind`.

    >>> "linear" in layer_kinds()
    True
    """
    kinds = {
        name: loaded_class(entry, "The kind of layer", LayerKind)  # type: ignore[type-abstract]
        for name, entry in entries_of(GROUP).items()
    }
    return {name: kind() for name, kind in kinds.items()}


def kind_named(name: str) -> LayerKind:
    """The kind of that name.

    Raises:
        LayerError: it is not installed.
    """
    kinds = layer_kinds()
    if name not in kinds:
        known = ", ".join(kinds) or "none"
        raise LayerError(
            f"No kind of layer {name!r} is installed; there are: {known}. Install the package that has it; if kinds "
            "of PyTorch's own layers are missing, install rank-search again."
        )
    return kinds[name]


def kind_of(module: nn.Module) -> tuple[str, LayerKind] | None:
    """The kind that a module is of, with its name; None if there is none. It may refuse the module all the same.

    A module of a subclass is of the kind as well, as long as the subclass changes nothing that it inherits, but how it
    is made and shown.
    """
    return next(((name, kind) for name, kind, own in _classes() if is_like(type(module), own)), None)


def is_like(derived: type[nn.Module], own: type[nn.Module]) -> bool:
    """Whether a class is the other, or derived from it and changes nothing but how it is made and shown."""
    if not issubclass(derived, own):
        return False
    between = derived.__mro__[: derived.__mro__.index(own)]
    return not any(vars(each).keys() & set(dir(own)) - _HARMLESS for each in between)


def resembles_a_layer(module: nn.Module) -> bool:
    """Whether a module's class is derived from one that can be a layer."""
    return any(isinstance(module, own) for _, _, own in _classes())


def _classes() -> Iterator[tuple[str, LayerKind, type[nn.Module]]]:
    for name, kind in layer_kinds().items():
        yield from ((name, kind, own) for own in kind.classes())


def weight_in(module: nn.Module) -> Tensor:
    """The weight of a layer as out × in, then the kernel: a view, so that writing there changes the layer.

    Raises:
        LayerError: the module is of no installed kind.
    """
    if (found := kind_of(module)) is None:
        raise LayerError(f"{type(module).__name__} is of no kind of layer that is installed, and has no such weight.")
    return found[1].weight(module)
