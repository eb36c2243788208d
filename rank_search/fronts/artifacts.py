"""Where the files of a study lie."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from rank_search.fronts.address import locate


def artifact_folder(store: str | Path, study: str) -> Path:
    """The folder of a study's files: beside an SQLite store, in the current folder for a server.

    Locations in the store are relative to it; a location outside is absolute and stays where it is.
    """
    url = locate(store)
    base = Path(url.database or "") if url.get_backend_name() == "sqlite" else Path(url.database or "rank-search")
    name = quote(study, safe=" ")
    return base.absolute().with_suffix(".artifacts") / (name if name.strip(".") else name.replace(".", "%2E"))
