"""What is said beside the results, on standard error: where to look next, and a word for each silent wait.

`--quiet` leaves all of it out. A wait gets its word on a terminal only: a log of a run has its progress, and `--log`
holds the words too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, final

import typer

_QUIET: Final[ContextVar[bool]] = ContextVar("quiet", default=False)
_STEPS: Final = logging.getLogger("rank_search.steps")


def quiet() -> bool:
    """Whether nothing but results and errors is asked for."""
    return _QUIET.get()


def say(text: str) -> None:
    """A remark for whoever sits there: no result, and no error."""
    if not quiet():
        typer.echo(text, err=True)


@contextmanager
def hushed(silent: bool) -> Iterator[None]:
    """Leave all remarks inside out, if silent, or if they are left out already."""
    token = _QUIET.set(silent or quiet())
    try:
        yield
    finally:
        _QUIET.reset(token)


@contextmanager
def announced() -> Iterator[None]:
    """Give each wait inside its word, unless all is to be quiet."""
    handler, level = _Words(quiet()), _STEPS.level
    _STEPS.addHandler(handler)
    _STEPS.setLevel(logging.INFO)
    try:
        yield
    finally:
        _STEPS.setLevel(level)
        _STEPS.removeHandler(handler)


@final
class _Words(logging.Handler):
    """A line for each wait, as it begins, on what standard error is at that moment."""

    def __init__(self, silent: bool) -> None:
        super().__init__(logging.INFO)
        self._silent = silent

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # nobody reads it any more
            if not self._silent and sys.stderr.isatty():
                sys.stderr.write(f"{record.getMessage()} …\n")
                sys.stderr.flush()
