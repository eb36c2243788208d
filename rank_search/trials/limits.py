"""A limit on the memory of one trial, so that one that eats memory fails alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rank_search.basics import is_lack_of_memory

_GIB: Final = 2**30


@contextmanager
def memory_limited(gibibytes: float | None) -> Iterator[None]:
    """Let this process allocate so much beyond what it holds now; asking for more raises a `MemoryError`.

    What counts is memory that is allocated, used or not (Linux: the soft limit RLIMIT_DATA, which new threads and
    child processes share in; it is put back afterwards). Memory on a GPU does not count. On other systems, and for
    None, there is no limit. A library in C that does not look whether it was given memory may end the process.

    Raises:
        MemoryError: the limit was reached: instead of what Python, NumPy or PyTorch raised.
    """
    if gibibytes is None or sys.platform != "linux":
        yield
        return
    with _data_limited(_data_held() + int(gibibytes * _GIB)):
        try:
            yield
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_lack_of_memory(error):
                raise
            said = " ".join(str(error).split()) or type(error).__name__
            raise MemoryError(
                f"a trial may take memory_per_trial = {gibibytes:g} GiB beyond what its worker holds: {said}"
            ) from error


@contextmanager
def _data_limited(size: int) -> Iterator[None]:
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lowest = min(each for each in (size, soft, hard) if each != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_held() -> int:
    """Bytes of data that this process has allocated, as the limit counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:"))
