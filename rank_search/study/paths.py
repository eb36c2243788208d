"""Paths in a study file: relative to the file, wherever it is run from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_SQLITE: Final = "sqlite:///"


def relative_part(place: str) -> str | None:
    """The relative path that a place is, be it plain or the URL of an SQLite file; None if it is something else.

    >>> relative_part("a/b.sqlite"), relative_part("sqlite:///b.sqlite")
    ('a/b.sqlite', 'b.sqlite')
    >>> relative_part("/a/b.sqlite"), relative_part("postgresql://host/db"), relative_part("sqlite:///file:b?uri=true")
    (None, None, None)
    """
    path = place.removeprefix(_SQLITE)
    if "://" in path or Path(path).is_absolute() or (path != place and (not path or path[0] == ":" or "?" in path)):
        return None
    return path


def beside(place: str, folder: Path) -> str:
    """The place, if it is relative from the folder of the study file on."""
    path = relative_part(place)
    return place if path is None else str(folder.absolute() / path)
