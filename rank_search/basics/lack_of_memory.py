"""Whether an error says that there was no memory left."""

from __future__ import annotations

import errno
from typing import Final

_SAID_BY_TORCH: Final = "can't allocate memory"


def is_lack_of_memory(error: BaseException) -> bool:
    """Python, the system and PyTorch say so in three ways.

    >>> is_lack_of_memory(MemoryError()), is_lack_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or _SAID_BY_TORCH in str(error)
