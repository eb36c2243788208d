"""Standard output and error that never break: whoever reads them may go away, and a search goes on.

The reader of a pipe ends, a terminal is closed, the disk under a redirected file is full, a stream was closed before
the program began: what can no longer be written there is lost.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, final

_DESCRIPTORS: Final = {"stdout": 1, "stderr": 2}


@final
class _Unbroken(io.RawIOBase):
    """Writes to a descriptor, and takes what cannot be written there for written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        try:
            return os.write(self._descriptor, content)
        except OSError:
            return len(content)


def stand_in_for_closed() -> None:
    """Open what is closed of the three standard streams: what is opened next would take its descriptor, and whatever is
    printed would go there."""
    with suppress(OSError):
        while (opened := os.open(os.devnull, os.O_RDWR)) <= max(_DESCRIPTORS.values()):
            os.set_inheritable(opened, True)  # by workers, which would have no stream
        os.close(opened)
    for name in _DESCRIPTORS:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


@contextmanager
def unbroken(name: Literal["stdout", "stderr"]) -> Iterator[None]:
    """Let nothing fail that is written to this stream; one that somebody has put in its place is theirs to mind."""
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
        yield
        return
    with suppress(OSError):
        stream.flush()
    raw = io.BufferedWriter(_Unbroken(_DESCRIPTORS[name]))
    lasting = io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True, write_through=True)
    setattr(sys, name, lasting)
    try:
        yield
    finally:
        lasting.flush()
        if getattr(sys, name) is lasting:
            setattr(sys, name, stream)
