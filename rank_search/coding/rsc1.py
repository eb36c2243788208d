"""Reads coded models of version RSC1, which earlier versions wrote: JSON in place of the binary header, Laplace priors.

    "RSC1" · CRC-32 of all that follows · length of the header · header · body

The header is JSON, compressed by zlib: for each tensor its name, shape, type and form, and a checksum of the coded
integers. Forms: a number type: the values are kept as such; "coded": integers times a step; a whole number: the same
tensor as the one at that place. The body holds each tensor's own bytes (for a coded one its step and prior) and then
one range-coded stream with the integers of all coded tensors.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rank_search.coding.container import DTYPES, damaged, from_bytes
from rank_search.errors import TrialError

MAGIC: Final = b"RSC1"
_CODED: Final = "coded"
_SIDE: Final = struct.Struct("<ffhh")  # the step; the scale, lowest and highest number of the prior
_FIXED: Final = struct.Struct("<4sII")
_LONGEST_HEADER: Final = 1 << 26


@dataclass(frozen=True)
class _Entry:
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
        if self.form == _CODED:
            return _SIDE.size
        return 0 if isinstance(self.form, int) else self.count * DTYPES[self.form].itemsize


def decode_older(data: bytes, largest: int) -> dict[str, Tensor]:
    """The state dict of a byte string of version RSC1, its checksum being right.

    Raises:
        TrialError: it makes no sense all the same, or is too large.
    """
    entries, expected, body = _opened(data, largest)
    position, check, found = 0, 0, list[Tensor]()
    coder = _reader(body[sum(entry.kept_bytes for entry in entries) :])
    for entry in entries:
        own = body[position : position + entry.kept_bytes]
        position += entry.kept_bytes
        if isinstance(entry.form, int):
            found.append(found[entry.form])
        elif entry.form == _CODED:
            step, numbers = _numbers(entry, own, coder)
            check = zlib.crc32(numbers.tobytes(), check)
            # Exact in float64, so that it is rounded once, to the nearest number of the tensor's type.
            found.append((torch.from_numpy(numbers).double() * step).to(entry.dtype).reshape(entry.shape))
        else:
            found.append(from_bytes(own, DTYPES[entry.form], entry.shape, entry.dtype))
    if check != expected:
        raise damaged("the decoded weights do not match their checksum")
    return {entry.name: tensor for entry, tensor in zip(entries, found, strict=True)}


def _opened(data: bytes, largest: int) -> tuple[list[_Entry], int, bytes]:
    """The entries, the checksum of the coded integers, and the body; sizes are checked before memory is taken."""
    header, body = _parts(data)
    try:
        entries, check = [*_entries(header)], int(header["check"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(f"its header makes no sense ({type(error).__name__}: {error})") from error
    if (scalars := sum(entry.count for entry in entries)) > largest:
        raise TrialError(f"This coded model claims {scalars} numbers; at most {largest} are read.")
    if (needed := sum(entry.kept_bytes for entry in entries)) > len(body):
        raise damaged(f"{needed} bytes of tensors are announced, {len(body)} are there")
    return entries, check, body


def _parts(data: bytes) -> tuple[Any, bytes]:
    if len(data) < _FIXED.size:
        raise damaged("it has no header")
    body = _FIXED.size + _FIXED.unpack_from(data)[2]
    try:
        return json.loads(zlib.decompressobj().decompress(data[_FIXED.size : body], _LONGEST_HEADER)), data[body:]
    except (zlib.error, ValueError, RecursionError) as error:
        raise damaged("its header cannot be read") from error


def _entries(header: Mapping[str, Any]) -> Iterator[_Entry]:
    columns = (header["name"], header["shape"], header["type"], header["form"])
    for place, (name, shape, dtype, form) in enumerate(zip(*columns, strict=True)):
        known = form == _CODED or form in DTYPES or (isinstance(form, int) and 0 <= form < place)
        if not known or any(not isinstance(size, int) or size < 0 for size in shape):
            raise ValueError(f"tensor {name!r} has form {form!r} and shape {shape!r}")
        yield _Entry(str(name), tuple(shape), DTYPES[dtype], form)


def _reader(stream: bytes) -> Any:
    if len(stream) % 4:
        raise damaged("its last stream is cut")
    return constriction.stream.queue.RangeDecoder(np.frombuffer(stream, dtype="<u4").astype(np.uint32))


def _numbers(entry: _Entry, own: bytes, coder: Any) -> tuple[float, NDArray[np.int32]]:
    step, scale, low, high = _SIDE.unpack(own)
    if not (math.isfinite(scale) and scale > 0 and low <= high):
        raise damaged(f"tensor {entry.name!r} has a prior of scale {scale} on {low} … {high}")
    if low == high:
        return step, np.full(entry.count, low, dtype=np.int32)
    model = constriction.stream.model.Categorical(_probabilities(low, high, scale), perfect=False)
    return step, (coder.decode(model, entry.count) + low).astype(np.int32)


def _probabilities(low: int, high: int, scale: float) -> NDArray[np.float64]:
    """Laplace(0, scale) in bins of one, not normalized; 0 is safe (no number gets less than 2⁻²⁴)."""
    magnitude = np.abs(np.arange(low, high + 1, dtype=np.float64))
    y = 0.5 / scale
    # e^(-|k|/b)·sinh(y), with the tail measured from its first bin so that no exponential overflows.
    tail = 0.5 * np.exp(-(magnitude - 0.5) / scale) * -np.expm1(-2 * y)
    mass: NDArray[np.float64] = np.where(magnitude == 0, -np.expm1(-y), tail)
    nearest = int(magnitude.min())
    return mass if mass.sum() > 0 else np.exp(-(magnitude - nearest) / scale)
