"""Where the files of a study lie."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from rank_search.store.address import locate


def artifact_folder(store: str | Path, study: str, beside: Path | None = None) -> Path:
    """The folder of a study's files: beside an SQLite store; for a server beside the study file, or in the current
    folder.

    Locations in the store are relative to it; a location outside is absolute and stays where it is.
    """
    url = locate(store)
    is_file = url.get_backend_name() == "sqlite"
    base = Path(url.database or "") if is_file else (beside or Path()) / (url.database or "rank-search")
    return base.absolute().with_suffix(".artifacts") / in_store_folder(study)


def in_store_folder(name: str) -> str:
    """The folder of a study within that of its store, for any name."""
    quoted = quote(name, safe=" ")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")
