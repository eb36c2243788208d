"""What stands in containers: dictionaries, lists, tuples and dataclasses, one in another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def named_leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What is in the containers, each with the names on the way to it, joined by underscores.

    >>> list(named_leaves({"ids": 1, "masks": [2, None]}, "batch"))
    [('batch_ids', 1), ('batch_masks_0', 2), ('batch_masks_1', None)]
    """
    inside = _items(value)
    if inside is None:
        yield name, value
        return
    for key, each in inside:
        yield from named_leaves(each, f"{name}_{key}" if name else str(key))


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return [(each.name, getattr(value, each.name)) for each in fields(value)]
    return None
