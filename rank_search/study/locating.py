"""Where a study's store is, from any folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rank_search.errors import StoreError
from rank_search.store import Store, locate
from rank_search.study.file import Study


@dataclass(frozen=True)
class StorePlace:
    """A store that a study goes to.

    Attributes:
        url: as given: a path, or a URL that may hold a password.
        earlier: whether it is in the current folder, not beside the study file: from before stores were kept there.
        ignored: a store beside the study file, where the earlier one is taken.
    """

    url: str
    earlier: bool = False
    ignored: str = ""


def store_of(study: Study) -> StorePlace:
    """The store of a study file: relative to the file, but where the current folder has this study already.

    Earlier versions took the current folder. A store there counts if it has a study of that name, unless that one's
    own file is in the current folder too: then it is another study.
    """
    beside, here = study.store, study.store_here
    if here is None or here.resolve() == Path(beside).resolve() or not _has(here, study):
        return StorePlace(beside)
    return StorePlace(str(here), earlier=True, ignored=beside if Path(beside).is_file() else "")


def finished_in(url: str, name: str) -> int | None:
    """How many trials of the study have finished there; None if it has not begun.

    Raises:
        StoreError: something is there that cannot be read as a store.
    """
    found_at = locate(url)
    if (
        found_at.get_backend_name() == "sqlite"
        and "uri" not in found_at.query
        and not Path(str(found_at.database)).exists()
    ):
        return None
    try:
        with Store.open(url) as store:
            found = [sum(each.trials.values()) for each in store.studies() if each.name == name]
    except StoreError:
        return None  # whoever opens it to write says what is wrong
    return found[0] if found else None


def _has(store: Path, study: Study) -> bool:
    try:
        if not store.is_file():
            return False
        with Store.open(store) as opened:
            if study.name not in [each.name for each in opened.studies()]:
                return False
            folder = opened.study(study.name).space.get("folder", "")
    except (OSError, StoreError):
        return False
    return Path(folder).resolve() == study.folder.resolve() or Path(folder).resolve() != Path.cwd()
