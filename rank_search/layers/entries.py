"""Classes that packages add by entry points."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from rank_search.errors import BrokenPluginError, ContractError

_Class = TypeVar("_Class")


def entries_of(group: str) -> dict[str, EntryPoint]:
    """Every entry point of a group by name, not yet loaded; sorted by name."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def loaded(entry: EntryPoint, what: str) -> object:
    """What an entry point stands for.

    Raises:
        BrokenPluginError: it raises on import; it is called as `what` says.
    """
    try:
        found: object = entry.load()
    except Exception as error:
        raise BrokenPluginError(
            f"{what} {entry.name!r} ({entry.value}) is installed but does not load: {type(error).__name__}: {error}. "
            "Reinstall or remove its package."
        ) from error
    return found


def loaded_class(entry: EntryPoint, what: str, base: type[_Class]) -> type[_Class]:
    """The concrete class that an entry point stands for.

    Raises:
        BrokenPluginError: it raises on import.
        ContractError: it is no concrete subclass of `base`.
    """
    found = loaded(entry, what)
    if not (inspect.isclass(found) and issubclass(found, base)) or inspect.isabstract(found):
        raise ContractError(
            f"{what} {entry.name!r} loads {found!r}; it must be a subclass of rank_search.layers.{base.__name__} that "
            "defines all of its abstract methods. Reinstall or remove its package."
        )
    return found
