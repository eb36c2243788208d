"""A model's tensors to one self-contained byte string, and back. `docs/format.md` describes the bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rank_search.coding import rsc1 as older
from rank_search.coding.byte_streams import Reader, Writer
from rank_search.coding.container import MAGIC, TYPES, Coded, Container, Entry, Kept, SharedCoder, damaged, from_bytes
from rank_search.coding.container import pack as packed
from rank_search.coding.container import unpack as unpacked
from rank_search.coding.grid import Grid
from rank_search.coding.plans import LARGEST, as_matrix, as_tensor
from rank_search.errors import TrialError

_INTEGERS: Final = (torch.int8, torch.int16, torch.int32, torch.int64)


def encode(state: Mapping[str, Tensor], grids: Mapping[str, Grid] | None = None) -> bytes:
    """Code a state dict.

    Without `grids` every float is kept as it is (32 bits each for float32). With them, a tensor that has a grid is
    rounded to it and coded, group after group, each in the smallest of several ways; and every other float tensor of
    less than two dimensions is kept as float16 where that is safe (finite, in the normal range or 0). Integers take
    the narrowest type that holds them; constant tensors are kept as one number, exactly, and tensors that share
    memory once. A tensor whose whole numbers need more than 16 bits, or that is empty, is kept as it is.

    Args:
        state: tensors by name; not changed.
        grids: by name of the tensor. Tensors of a group (other than "") share a prior or the contexts of the coder.

    Raises:
        TrialError: a tensor with a grid holds NaN or infinity or does not fit its grid, a tensor's type cannot be
            kept, or a name has a zero byte.

    >>> state = {"w": torch.tensor([[0.5, -1.0], [0.0, 0.0]])}
    >>> torch.equal(decode(encode(state, {"w": Grid.nearest(torch.tensor([[0.5]]))}))["w"], state["w"])
    True
    """
    entries, kept, writer = list[Entry](), bytearray(), Writer()
    places: dict[tuple[object, ...], int] = {}
    for name, tensor in state.items():
        if "\0" in name:
            raise TrialError(f"The name {name!r} has a zero byte, which cannot be coded. Rename the module.")
        grid = None if grids is None else grids.get(name)
        form: Kept | Coded | SharedCoder
        if (place := places.setdefault(_identity(tensor), len(entries))) < len(entries):
            form = SharedCoder(place)
        elif grid is not None and (whole := _whole(name, tensor, grid)) is not None:
            exponents = grid.exponents.reshape(_modes_of(grid, tensor))
            group = writer.add(grid.group or "\0" + name, as_matrix(whole)[0], exponents.flatten().tolist())
            form = Coded(group, tuple(size > 1 for size in exponents.shape), grid.frequencies)
        else:
            form, own = _kept(name, tensor, lossy=grids is not None)
            kept += own
        entries.append(Entry(name, tuple(tensor.shape), tensor.dtype, form))
    plans, check, adaptive, ranged = writer.finish()
    return packed(Container(entries, plans, check, bytes(kept), adaptive, ranged))


def decode(data: bytes, largest: int = 1 << 31) -> dict[str, Tensor]:
    """The state dict that a byte string of `encode` stands for.

    Args:
        data: the whole byte string, of this version or an older one.
        largest: refuse a model of more scalars, before any memory is taken for it.

    Raises:
        TrialError: the bytes are no coded model, of another version, damaged, cut short, or too large.
    """
    if data[:4] == older.MAGIC:
        return dict(decode_each(data, largest))
    parts = _opened(data, largest)
    found = dict(_tensors(parts))
    return {entry.name: found[entry.name] for entry in parts.entries}


def decode_each(data: bytes, largest: int = 1 << 31) -> Iterator[tuple[str, Tensor]]:
    """The same tensor by tensor, as they are read: no more of them is held than are shared under several names.

    First come those that were kept as they are, then the coded ones, group by group, then other names of the same.
    Whether the coded numbers are right is known when the last one has been read: use nothing before the end.

    Args:
        data, largest: as for `decode`.

    Raises:
        TrialError: as `decode` does, at the latest after the last tensor.

    >>> [name for name, _ in decode_each(encode({"a": torch.ones(2), "b": torch.zeros(3)}))]
    ['a', 'b']
    """
    if data[:4] == older.MAGIC:
        _check_older(data)
        yield from older.decode_older(data, largest).items()
    else:
        yield from _tensors(_opened(data, largest))


def _opened(data: bytes, largest: int) -> Container:
    if data[:3] != MAGIC[:3]:
        raise TrialError("These bytes are no coded model: that starts with RSC and a version. Is it another file?")
    if data[:4] != MAGIC:
        raise TrialError(
            f"The coded model has version {data[:4]!r}; this build reads RSC1 and RSC2. Update rank-search."
        )
    return unpacked(data, largest)


def _check_older(data: bytes) -> None:
    if len(data) < 12 or zlib.crc32(memoryview(data)[8:]) != int.from_bytes(data[4:8], "little"):
        raise damaged("its checksum does not hold")


def _tensors(parts: Container) -> Iterator[tuple[str, Tensor]]:
    originals = {entry.form.place for entry in parts.entries if isinstance(entry.form, SharedCoder)}
    held = dict[int, Tensor]()
    for place, tensor in chain(_read_all_kept(parts), _read_coded(parts)):
        if place in originals:
            held[place] = tensor
        yield parts.entries[place].name, tensor
    for place, entry in enumerate(parts.entries):
        if isinstance(entry.form, SharedCoder):
            held[place] = held[entry.form.place]
            yield entry.name, held[place]


def _read_all_kept(parts: Container) -> Iterator[tuple[int, Tensor]]:
    kept = memoryview(parts.kept)
    for place, entry in enumerate(parts.entries):
        if isinstance(entry.form, Kept):
            yield place, _read_kept(entry, bytes(kept[: entry.kept_bytes]))
            kept = kept[entry.kept_bytes :]


# ---- tensors on grids ------------------------------------------------------------------------------------


def _modes_of(grid: Grid, tensor: Tensor) -> tuple[int, ...]:
    """The shape of a grid's exponents, with as many modes as the tensor."""
    return tuple(grid.exponents.shape) if grid.exponents.numel() > 1 else (1,) * tensor.dim()


def _whole(name: str, tensor: Tensor, grid: Grid) -> Tensor | None:
    """The tensor in whole steps, or None where it has no element or one that is too large."""
    modes = _modes_of(grid, tensor)
    fits = len(modes) == tensor.dim() and all(size in (1, full) for size, full in zip(modes, tensor.shape, strict=True))
    if not fits or not tensor.is_floating_point() or (grid.frequencies and tensor.dim() < 2):
        raise TrialError(
            f"The step exponents of {name} have the shape {tuple(grid.exponents.shape)}, which does not fit its "
            f"{tensor.dtype} tensor of shape {tuple(tensor.shape)}; each mode must have size 1 or the tensor's."
        )
    if not bool(tensor.isfinite().all()):
        raise TrialError(f"{name} holds NaN or infinity; only finite weights can be coded.")
    if tensor.numel() == 0:
        return None
    whole = grid.round(tensor)
    return whole if float(whole.abs().max()) <= LARGEST else None


def _read_coded(parts: Container) -> Iterator[tuple[int, Tensor]]:
    coded = [(place, entry) for place, entry in enumerate(parts.entries) if isinstance(entry.form, Coded)]
    reader = Reader(parts.plans, parts.adaptive, parts.ranged)
    sizes = {place: entry.grid_shape for place, entry in coded}
    try:
        exponents = reader.exponents([int(np.prod(size, dtype=object)) for size in sizes.values()])
        grids = dict(zip(sizes, exponents, strict=True))
        check = 0
        for group in range(len(parts.plans)):
            members = [(place, entry) for place, entry in coded if _group(entry) == group]
            reader.begin(group, sum(entry.count for _, entry in members))
            for place, entry in members:
                matrix = reader.read(group, _matrix_shape(entry.shape))
                check = zlib.crc32(matrix.astype("<i4").tobytes(), check)
                marks = torch.tensor(grids[place], dtype=torch.int32).reshape(sizes[place])
                grid = Grid(marks, isinstance(entry.form, Coded) and entry.form.frequencies)
                yield place, grid.values(as_tensor(matrix, entry.shape), entry.dtype)
    except (ValueError, AssertionError, OverflowError) as error:
        raise damaged(f"its streams cannot be read ({type(error).__name__}: {error})") from error
    if check != parts.check:
        raise damaged("the decoded weights do not match their checksum")


def _group(entry: Entry) -> int:
    return entry.form.group if isinstance(entry.form, Coded) else -1


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    count = int(np.prod(shape, dtype=object))
    rows = shape[0] if len(shape) > 1 else 1
    return rows, count // rows


# ---- tensors kept as they are ----------------------------------------------------------------------------


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """What two tensors share exactly when they are the same memory seen in the same way."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _kept(name: str, tensor: Tensor, lossy: bool) -> tuple[Kept, bytes]:
    flat = tensor.detach().cpu().reshape(-1)
    is_constant = flat.numel() > 1 and _is_constant(flat)
    dtype = _kept_type(name, tensor, lossy and not is_constant)
    own = (flat[:1] if is_constant else flat).to(dtype).contiguous().view(torch.uint8)
    return Kept(dtype, is_constant), bytes(own.numpy().tobytes())


def _is_constant(flat: Tensor) -> bool:
    """Whether all numbers have the same bits (so that 0 is not -0, and NaN may be NaN)."""
    rows = flat.contiguous().view(torch.uint8).reshape(flat.numel(), -1)
    return bool((rows == rows[0]).all())


def _read_kept(entry: Entry, own: bytes) -> Tensor:
    assert isinstance(entry.form, Kept)
    if not entry.form.is_constant or not own:
        return from_bytes(own, entry.form.dtype, entry.shape, entry.dtype)
    return from_bytes(own, entry.form.dtype, (1,), entry.dtype).expand(entry.count).reshape(entry.shape).clone()


def _kept_type(name: str, tensor: Tensor, lossy: bool) -> torch.dtype:
    if tensor.dtype not in TYPES:
        raise TrialError(f"{name} is {tensor.dtype}, which cannot be coded. Convert it in the task.")
    if tensor.dtype in _INTEGERS and tensor.numel():
        low, high = int(tensor.min()), int(tensor.max())
        return next(kind for kind in _INTEGERS if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)
    halved = lossy and tensor.dim() < 2 and tensor.dtype in (torch.float32, torch.float64)
    return torch.float16 if halved and _safe_in_half(tensor) else tensor.dtype


def _safe_in_half(tensor: Tensor) -> bool:
    limits, magnitude = torch.finfo(torch.float16), tensor.detach().abs()
    normal = (magnitude >= limits.smallest_normal) & (magnitude <= limits.max)
    return bool((normal | (magnitude == 0)).all())
