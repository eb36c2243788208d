"""The numbers under which PyTorch's format of exported programs has dtypes, layouts and memory formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from rank_search.errors import ExportError

# as in torch._export.serde.schema: ScalarType, Layout and MemoryFormat
DTYPES: Final[Mapping[int, torch.dtype]] = {
    **{1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64},
    **{6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16},
    **{9: torch.complex32, 10: torch.complex64, 11: torch.complex128},
}
LAYOUTS: Final[Mapping[int, torch.layout]] = {7: torch.strided}
MEMORY_FORMATS: Final[Mapping[int, torch.memory_format]] = {
    **{1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format},
}


def numbered(number: Any, known: Mapping[int, Any]) -> Any:
    """What has a number in one of these tables.

    Raises:
        ExportError: nothing has it there.

    >>> numbered(7, DTYPES)
    torch.float32
    """
    if number not in known:
        kind = type(next(iter(known.values()))).__name__
        raise ExportError(f"It uses the {kind} that PyTorch's format has as number {number!r}, which is not read.")
    return known[number]
