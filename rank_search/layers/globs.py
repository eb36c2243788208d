"""Rules that name layers."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(name: str, glob: str) -> bool:
    """Whether a layer's name is meant by a rule: a glob on dotted names, or the name itself, with any characters.

    >>> matches("stage[0]", "stage[0]"), matches("stage0", "stage[0]"), matches("stage[0]", "stage*")
    (True, True, True)
    """
    return name == glob or fnmatchcase(name, glob)


def matches_any(names: Iterable[str], globs: Iterable[str]) -> bool:
    """Whether some name is meant by some rule."""
    rules = tuple(globs)
    return any(matches(name, glob) for name in names for glob in rules)
