"""The byte string of a coded model: a checked header that names every tensor, and what follows it.

    "RSC1" · CRC-32 of all that follows · length of the header · header · body

The header is JSON, compressed by zlib: for each tensor its name, shape, type and form, and a checksum of the coded
integers. Forms: a number type ("float16", "int8", "float32", …): the values are kept as such; "coded": the values
are integers times a step; a whole number: the same tensor as the one at that place. Numbers are little-endian.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from rank_search.errors import TrialError

MAGIC: Final = b"RSC1"
CODED: Final = "coded"
SIDE: Final = struct.Struct("<ffhh")
"""What stands beside a coded tensor: its step; the scale, lowest and highest number of its prior."""

DTYPES: Final[Mapping[str, torch.dtype]] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}
_FIXED: Final = struct.Struct("<4sII")
_LONGEST_HEADER: Final = 1 << 26


@dataclass(frozen=True)
class Entry:
    """One tensor's line in the header."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    form: str | int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def kept_bytes(self) -> int:
        """Bytes of its own in the body, beside the stream that all coded tensors share."""
        if self.form == CODED:
            return SIDE.size
        return 0 if isinstance(self.form, int) else self.count * DTYPES[self.form].itemsize


def type_name(dtype: torch.dtype) -> str:
    """`"float32"` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def damaged(why: str) -> TrialError:
    """The error for bytes that are not what was written."""
    return TrialError(
        f"A coded model is read whole or not at all; this one is damaged or cut short: {why}. Restore it from a copy."
    )


def pack(entries: Sequence[Entry], check: int, body: bytes) -> bytes:
    """The byte string."""
    columns = {
        "name": [entry.name for entry in entries],
        "shape": [entry.shape for entry in entries],
        "type": [type_name(entry.dtype) for entry in entries],
        "form": [entry.form for entry in entries],
        "check": check,
    }
    header = zlib.compress(json.dumps(columns, separators=(",", ":"), ensure_ascii=False).encode(), 9)
    content = struct.pack("<I", len(header)) + header + body
    return MAGIC + struct.pack("<I", zlib.crc32(content)) + content


def unpack(data: bytes, largest: int) -> tuple[list[Entry], int, bytes]:
    """The entries, the checksum of the coded integers, and the body; sizes are checked before any memory is taken.

    Raises:
        TrialError: the bytes are no coded model, of another version, damaged, cut short, or too large.
    """
    header, body = _open(data)
    try:
        entries, check = [*_entries(header)], int(header["check"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(f"its header makes no sense ({type(error).__name__}: {error})") from error
    if (scalars := sum(entry.count for entry in entries)) > largest:
        raise TrialError(f"A coded model of at most {largest} numbers is read; this one claims {scalars}.")
    if (needed := sum(entry.kept_bytes for entry in entries)) > len(body):
        raise damaged(f"{needed} bytes of tensors are announced, {len(body)} are there")
    return entries, check, body


def _open(data: bytes) -> tuple[Any, bytes]:
    """The header and what follows it, once the checksum holds."""
    if len(data) < _FIXED.size or not data.startswith(MAGIC[:3]):
        raise TrialError("A coded model starts with RSC and a version; these bytes do not. Is it another file?")
    magic, checksum, length = _FIXED.unpack_from(data)
    if magic != MAGIC:
        raise TrialError(f"This version reads coded models of version RSC1; found {magic!r}. Update rank-search.")
    if zlib.crc32(memoryview(data)[8:]) != checksum:
        raise damaged("its checksum does not hold")
    body = _FIXED.size + length
    try:
        return json.loads(zlib.decompressobj().decompress(data[_FIXED.size : body], _LONGEST_HEADER)), data[body:]
    except (zlib.error, ValueError) as error:
        raise damaged("its header cannot be read") from error


def _entries(header: Mapping[str, Any]) -> Iterator[Entry]:
    columns = (header["name"], header["shape"], header["type"], header["form"])
    for place, (name, shape, dtype, form) in enumerate(zip(*columns, strict=True)):
        known = form == CODED or form in DTYPES or (isinstance(form, int) and 0 <= form < place)
        if not known or any(not isinstance(size, int) or size < 0 for size in shape):
            raise ValueError(f"tensor {name!r} has form {form!r} and shape {shape!r}")
        yield Entry(str(name), tuple(shape), DTYPES[dtype], form)
