"""Which word after a verb is which: STORE and NAME may be left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rank_search.errors import QueryError

VARIABLE: Final = "RANK_SEARCH_STORE"
_ENDINGS: Final = (".sqlite", ".sqlite3", ".db")

Studies = Callable[[str], Collection[str]]
"""The names of the studies in a store."""


@dataclass(frozen=True)
class Shape:
    """What words a verb takes, after its STORE.

    Attributes:
        name: whether a NAME is next, which may be left out.
        after: how many more there have to be.
        many: whether any number may follow.
    """

    name: bool
    after: int
    many: bool

    @property
    def all(self) -> int:
        """How many words it takes with nothing left out, if that is one number."""
        return 1 + self.name + self.after


def complete(words: Sequence[str], shape: Shape, default: str | None, studies: Studies) -> list[str]:
    """The words with STORE and NAME where they were left out.

    A verb with as many words as it takes has them all. Otherwise the first word is the STORE, unless RANK_SEARCH_STORE
    (`default`) names one and the word is none: no URL, no file that is there, and no name that ends as a store's does.
    NAME is left out if there are only the words that come after it; in front of any number of trials, if the word in
    its place is a number and no study's name.

    Raises:
        QueryError: there is no store, or a NAME is needed.
    """
    if len(words) == shape.all and not shape.many:
        return list(words)
    store, rest = _store(words, default)
    if not shape.name or not _is_name_missing(store, rest, shape, studies):
        return [store, *rest]
    return [store, sole(store, studies(store)), *rest]


def sole(store: str, names: Collection[str]) -> str:
    """The only study of a store.

    Raises:
        QueryError: there are others, or none.
    """
    from rank_search.store import locate, location_of

    if len(names) == 1:
        return next(iter(names))
    shown = location_of(locate(store))
    if not names:
        raise QueryError(f"The store {shown} has no studies yet. `rank-search run` makes one.")
    raise QueryError(f"{shown} has {len(names)} studies: {', '.join(names)}. Give the NAME of one.")


def _store(words: Sequence[str], default: str | None) -> tuple[str, Sequence[str]]:
    if default and not (words and _is_store(words[0])):
        return default, words
    if not words:
        raise QueryError(f"No store is given. Give its path or URL first, or set {VARIABLE} to it.")
    return words[0], words[1:]


def _is_store(word: str) -> bool:
    try:
        return "://" in word or word.endswith(_ENDINGS) or Path(word).is_file()
    except (OSError, ValueError):  # too long for a path, or no path at all
        return False


def _is_name_missing(store: str, rest: Sequence[str], shape: Shape, studies: Studies) -> bool:
    if not shape.many:
        return len(rest) <= shape.after
    return not rest or (rest[0].isdecimal() and rest[0] not in studies(store))
