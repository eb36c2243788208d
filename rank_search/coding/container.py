"""The byte string of a coded model, version RSC2: what it holds, and its header. `docs/format.md` has every field.

"RSC2" · CRC-32 of all that follows · CRC-32 of the whole numbers · length of the header · header ·
kept tensors · adaptive stream · range-coded stream
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from rank_search.coding.plans import CodingPlan, read_plan, write_plan
from rank_search.coding.varint import Wire
from rank_search.errors import TrialError

MAGIC: Final = b"RSC2"
FIXED: Final = struct.Struct("<4sII")

TYPES: Final = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
"""Number types; the file has their places here."""

DTYPES: Final = {str(dtype).removeprefix("torch."): dtype for dtype in TYPES}

_CONSTANT: Final = 16
_CODED: Final = 32
_SHARED: Final = 48
_DIMENSIONS: Final = 64
_LONGEST_HEADER: Final = 1 << 26
_WORDS: Final = (
    b"downsample.features.classifier.backbone.embedding.attention.self_attn.in_proj_norm.layer3.2.conv1.layer4.0.bn2."
    b"block1.1.shortcut.0.proj.head.out.first.core.second.right.weight\0left.weight\0fc1.bias\0linear.weight\0fc3.weight"
    b"\0fc2.weight\0fc2.bias\0conv2.weight\0conv2.bias\0conv1.weight\0conv1.bias\0bn1.weight\0bn1.bias\0"
    b"bn1.running_mean\0bn1.running_var\0bn1.num_batches_tracked\0fc.weight\0fc.bias\0"
)
"""What the header's compression knows beforehand. Part of the format: never to be changed."""


@dataclass(frozen=True)
class Kept:
    """A tensor whose values are kept as a type; a constant one, once."""

    dtype: torch.dtype
    is_constant: bool


@dataclass(frozen=True)
class Coded:
    """A tensor of whole numbers on a grid: its group, and along which modes the grid has a step for each index."""

    group: int
    modes: tuple[bool, ...]
    frequencies: bool


@dataclass(frozen=True)
class SharedCoder:
    """The same tensor as an earlier one."""

    place: int


@dataclass(frozen=True)
class Entry:
    """One tensor's line in the header."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    form: Kept | Coded | SharedCoder

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def kept_bytes(self) -> int:
        """Bytes of its own among the kept tensors."""
        if not isinstance(self.form, Kept):
            return 0
        return (min(self.count, 1) if self.form.is_constant else self.count) * self.form.dtype.itemsize

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """The shape of a coded tensor's exponents."""
        modes = self.form.modes if isinstance(self.form, Coded) else ()
        return tuple(size if full else 1 for size, full in zip(self.shape, modes, strict=True))


@dataclass(frozen=True)
class Container:
    """A coded model in its parts."""

    entries: Sequence[Entry]
    plans: Sequence[CodingPlan]
    check: int
    kept: bytes = field(repr=False)
    adaptive: bytes = field(repr=False)
    ranged: bytes = field(repr=False)


def damaged(why: str) -> TrialError:
    """The error for bytes that are not what was written."""
    return TrialError(
        f"A coded model is read whole or not at all; this one is damaged or cut short: {why}. Restore it from a copy."
    )


def from_bytes(own: bytes, kept: torch.dtype, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A kept tensor."""
    if not own:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(own), dtype=kept).reshape(shape).to(dtype)


def pack(parts: Container) -> bytes:
    """The byte string."""
    header = _header(parts)
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _WORDS)
    smaller = coder.compress(header) + coder.flush()
    is_smaller = len(smaller) < len(header)
    wire = Wire()
    wire.put(2 * len(smaller) + 1 if is_smaller else 2 * len(header))
    wire.put_bytes(smaller if is_smaller else header)
    content = wire.written() + parts.kept + parts.adaptive + parts.ranged
    check = struct.pack("<I", parts.check)
    return MAGIC + struct.pack("<I", zlib.crc32(check + content)) + check + content


def _header(parts: Container) -> bytes:
    wire, entries = Wire(), parts.entries
    wire.put(len(entries))
    wire.put_bytes("".join(entry.name + "\0" for entry in entries).encode())
    wire.put_bytes(bytes(_form_byte(entry.form) for entry in entries))
    wire.put_bytes(bytes(TYPES.index(entry.dtype) for entry in entries))
    wire.put_bytes(bytes(len(entry.shape) for entry in entries))
    for entry in entries:
        for size in entry.shape:
            wire.put(size)
    for entry in entries:
        if isinstance(entry.form, SharedCoder):
            wire.put(entry.form.place)
        elif isinstance(entry.form, Coded):
            wire.put(sum(full << mode for mode, full in enumerate(entry.form.modes)))
            wire.put(entry.form.group)
    wire.put(len(parts.plans))
    for plan in parts.plans:
        write_plan(wire, plan)
    wire.put(len(parts.adaptive))
    return wire.written()


def _form_byte(form: Kept | Coded | SharedCoder) -> int:
    if isinstance(form, Kept):
        return TYPES.index(form.dtype) + _CONSTANT * form.is_constant
    return _CODED + form.frequencies if isinstance(form, Coded) else _SHARED


def unpack(data: bytes, largest: int) -> Container:
    """The parts of a byte string that starts with RSC2; sizes are checked before any memory is taken.

    Raises:
        TrialError: the bytes are damaged, cut short, or hold too large a model.
    """
    if len(data) < FIXED.size:
        raise damaged("it has no header")
    _, checksum, check = FIXED.unpack_from(data)
    if zlib.crc32(memoryview(data)[8:]) != checksum:
        raise damaged("its checksum does not hold")
    try:
        wire = Wire(data[FIXED.size :])
        length, is_smaller = divmod(wire.get(), 2)
        header = wire.get_bytes(length)
        entries, plans, adaptive = _read_header(Wire(_inflated(header) if is_smaller else header))
        if (scalars := sum(entry.count for entry in entries)) > largest:
            raise TrialError(f"This coded model claims {scalars} numbers; at most {largest} are read.")
        kept = wire.get_bytes(sum(entry.kept_bytes for entry in entries))
        return Container(entries, plans, check, kept, wire.get_bytes(adaptive), wire.rest())
    except (ValueError, IndexError, zlib.error) as error:
        raise damaged(f"its header makes no sense ({type(error).__name__}: {error})") from error


def _inflated(header: bytes) -> bytes:
    coder = zlib.decompressobj(-15, _WORDS)
    found = coder.decompress(header, _LONGEST_HEADER)
    if coder.unconsumed_tail or not coder.eof:
        raise ValueError("it is cut, or too long")
    return found


def _read_header(wire: Wire) -> tuple[list[Entry], list[CodingPlan], int]:
    count = wire.get(_LONGEST_HEADER)
    names = wire.get_texts(count)
    forms, types, dimensions = (wire.get_bytes(count) for _ in range(3))
    if max(dimensions, default=0) > _DIMENSIONS:
        raise ValueError(f"a tensor has {max(dimensions)} modes")
    shapes = [tuple(wire.get(1 << 48) for _ in range(each)) for each in dimensions]
    entries = []
    for place, (name, form, kind, shape) in enumerate(zip(names, forms, types, shapes, strict=True)):
        entries.append(Entry(name, shape, TYPES[kind], _read_form(wire, form, place, len(shape))))
    plans = [read_plan(wire) for _ in range(wire.get(count + 1))]
    _check(entries, plans)
    adaptive = wire.get()
    if wire.rest():
        raise ValueError("it is followed by more")
    return entries, plans, adaptive


def _read_form(wire: Wire, form: int, place: int, dimensions: int) -> Kept | Coded | SharedCoder:
    if form < _CODED:
        return Kept(TYPES[form % _CONSTANT], form >= _CONSTANT)
    if form in (_CODED, _CODED + 1):
        modes = wire.get((1 << dimensions) - 1)
        return Coded(wire.get(place), tuple(bool(modes >> mode & 1) for mode in range(dimensions)), form > _CODED)
    if form != _SHARED:
        raise ValueError(f"a tensor has form {form}")
    return SharedCoder(wire.get(place - 1))


def _check(entries: Sequence[Entry], plans: Sequence[CodingPlan]) -> None:
    """Names are unique, a shared tensor looks like its other, and a coded one has a group and numbers."""
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError("two tensors have one name")
    for entry in entries:
        if isinstance(entry.form, Coded):
            thin = entry.form.frequencies and len(entry.shape) < 2
            if entry.form.group >= len(plans) or not entry.count or thin or not entry.dtype.is_floating_point:
                raise ValueError(f"tensor {entry.name!r} of shape {entry.shape} cannot be coded so")
        elif isinstance(entry.form, SharedCoder):
            other = entries[entry.form.place]
            if (other.shape, other.dtype) != (entry.shape, entry.dtype):
                raise ValueError(f"tensor {entry.name!r} is not like {other.name!r}")
