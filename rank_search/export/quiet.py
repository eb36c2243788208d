"""Exporters print, log and warn of their own affairs; a user can do nothing about it, and gets one line of ours."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Final

_TALKERS: Final = ("torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "transformers")
_LONGEST: Final = 240
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that an exporter says reaches the user; what it raises does."""
    known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _TALKERS]
    loggers = [logging.getLogger(name) for name in {*known, *_TALKERS}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def said(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, without colours.

    >>> said(ValueError("\\x1b[31mno\\x1b[0m\\n\\ngraph():"))
    'ValueError: no'
    """
    lines = (line.strip() for line in _COLOURS.sub("", str(error)).splitlines())
    first = next((line for line in lines if line), "").rstrip(". ")
    short = first if len(first) <= _LONGEST else f"{first[:_LONGEST]} …"
    return f"{type(error).__name__}: {short}" if short else type(error).__name__
