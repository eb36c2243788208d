"""Outputs that are computed once for inputs that come again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, final

import torch
from torch import Tensor

from rank_search.basics import named_leaves

_MOST: Final = 2**30
"""Bytes of outputs that are kept."""


@final
class KnownOutputs:
    """Outputs by the content of what they are for, as far as memory allows."""

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._bytes = most, 0
        self._kept: dict[str, list[Tensor]] = {}

    def of(self, about: Any, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Those for inputs with this very content, computed if they are not there."""
        key = _digest(about)
        if key not in self._kept:
            found = compute()
            size = sum(each.nbytes for each in found)
            if self._bytes + size > self._most:
                return found
            self._kept[key] = found
            self._bytes += size
        return self._kept[key]


def _digest(about: Any) -> str:
    found = hashlib.blake2b()
    for name, each in named_leaves({str(place): part for place, part in enumerate(about)}):
        found.update(f"{name}:".encode())
        if isinstance(each, Tensor):
            found.update(f"{each.device}{each.dtype}{tuple(each.shape)}".encode())
            found.update(each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(each).encode())
    return found.hexdigest()
