"""Errors of code that is not ours, with the name of what raised them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rank_search.errors import RankSearchError


@contextmanager
def attributing(kind: type[RankSearchError], who: str, remedy: str) -> Iterator[None]:
    """Turn an error of the code inside into one of ours: `who` raised it, and what to do about it.

    Raises:
        RankSearchError: of that kind, in place of any error that is not ours already.

    >>> with attributing(RankSearchError, "The task's loss()", "Correct the task."):
    ...     raise KeyError("x")
    Traceback (most recent call last):
    rank_search.errors.RankSearchError: The task's loss() raised KeyError: 'x'. Correct the task.
    """
    try:
        yield
    except RankSearchError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise kind(f"{who} raised {type(error).__name__}: {said}. {remedy}") from error
