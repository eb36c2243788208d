"""Files that verbs write: none takes the place of one that is there, unless it is told to."""

from __future__ import annotations

from pathlib import Path

from rank_search.errors import ExportError


def require_free(target: Path, overwrite: bool) -> None:
    """See that nothing is lost by writing this file.

    Raises:
        ExportError: there is something, and it is not to be replaced; or it is a folder.
    """
    if target.is_dir():
        raise ExportError(f"{target} is a folder. Give the name of a file with -o.")
    if target.exists() and not overwrite:
        raise ExportError(f"{target} already exists. Give another name with -o, or replace it with --overwrite.")
