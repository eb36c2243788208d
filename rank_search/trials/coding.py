"""A model's tensors to one self-contained byte string, and back.

The body of the container holds, in the order of the entries, each tensor's own bytes (for a coded one its step and
prior, for a kept one its values), and then one range-coded stream with the integers of all coded tensors.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rank_search.errors import TrialError
from rank_search.trials.container import CODED, DTYPES, SIDE, Entry, damaged, pack, type_name, unpack
from rank_search.trials.symbols import LARGEST, Integers, Prior, SymbolReader, SymbolWriter

_INTEGERS: Final = (torch.int8, torch.int16, torch.int32, torch.int64)


def encode(state: Mapping[str, Tensor], steps: Mapping[str, float] | None = None) -> bytes:
    """Code a state dict.

    Without `steps` every float is kept as it is (32 bits each for float32). With them, a tensor that has a step
    is rounded to multiples of it and range-coded, and every other float tensor of less than two dimensions is
    kept as float16 where that is safe (finite, in the normal range or 0). Integers take the narrowest type that
    holds them; tensors that share memory are kept once. A tensor whose multiples need more than 16 bits is kept
    as it is.

    Args:
        state: tensors by name; not changed.
        steps: float32 numbers by name of the tensor.

    Raises:
        TrialError: a tensor with a step holds NaN or infinity, a step is not positive, or a tensor's type
            cannot be kept.

    >>> state = {"w": torch.tensor([[0.5, -1.0], [0.0, 0.0]])}
    >>> torch.equal(decode(encode(state, {"w": 0.5}))["w"], state["w"])
    True
    """
    body, writer, check = bytearray(), SymbolWriter(), 0
    entries: list[Entry] = []
    places: dict[tuple[object, ...], int] = {}
    for name, tensor in state.items():
        step = steps.get(name) if steps else None
        form: str | int
        if (place := places.setdefault(_identity(tensor), len(entries))) < len(entries):
            form = place
        elif step is not None and (symbols := _symbols(name, tensor, step)) is not None:
            form, prior = CODED, Prior.of(symbols)
            body += SIDE.pack(step, prior.scale, prior.low, prior.high)
            writer.write(symbols, prior)
            check = zlib.crc32(symbols.tobytes(), check)
        else:
            kept_as = _kept_type(name, tensor, lossy=steps is not None)
            form = type_name(kept_as)
            body += _to_bytes(tensor.to(kept_as))
        entries.append(Entry(name, tuple(tensor.shape), tensor.dtype, form))
    return pack(entries, check, bytes(body) + writer.finish())


def decode(data: bytes, largest: int = 1 << 31) -> dict[str, Tensor]:
    """The state dict that a byte string of `encode` stands for.

    Args:
        data: the whole byte string.
        largest: refuse a model of more scalars, before any memory is taken for it.

    Raises:
        TrialError: the bytes are no coded model, of another version, damaged, cut short, or too large.
    """
    entries, expected, body = unpack(data, largest)
    position, check = 0, 0
    reader = SymbolReader(body[sum(entry.kept_bytes for entry in entries) :])
    found: list[Tensor] = []
    for entry in entries:
        own = body[position : position + entry.kept_bytes]
        position += entry.kept_bytes
        if isinstance(entry.form, int):
            found.append(found[entry.form])
        elif entry.form == CODED:
            step, symbols = _read_symbols(entry, own, reader)
            check = zlib.crc32(symbols.tobytes(), check)
            found.append(_in_steps(symbols, step, entry))
        else:
            found.append(_from_bytes(own, entry))
    if check != expected:
        raise damaged("the decoded weights do not match their checksum")
    return {entry.name: tensor for entry, tensor in zip(entries, found, strict=True)}


# ---- tensors of integers times a step ------------------------------------------------------------------


def _symbols(name: str, tensor: Tensor, step: float) -> Integers | None:
    """The tensor in whole steps, or None where it has no element or one that is too large."""
    if not (math.isfinite(step) and np.float32(step) > 0):
        raise TrialError(f"A step is a positive number; that of {name} is {step}.")
    multiples = torch.round(tensor.detach().cpu().double() / float(np.float32(step)))
    if not bool(multiples.isfinite().all()):
        raise TrialError(f"Only finite weights can be coded; {name} holds NaN or infinity.")
    if multiples.numel() == 0 or float(multiples.abs().max()) > LARGEST:
        return None
    symbols: Integers = multiples.flatten().numpy().astype(np.int32)
    return symbols


def _read_symbols(entry: Entry, own: bytes, reader: SymbolReader) -> tuple[float, Integers]:
    step, scale, low, high = SIDE.unpack(own)
    if not (math.isfinite(scale) and scale > 0 and low <= high):
        raise damaged(f"tensor {entry.name!r} has a prior of scale {scale} on {low} … {high}")
    return step, reader.read(entry.count, Prior(low, high, scale))


def _in_steps(symbols: Integers, step: float, entry: Entry) -> Tensor:
    # The product is exact in float64, so that it is rounded once, to the nearest number of the tensor's type.
    return (torch.from_numpy(symbols).double() * step).to(entry.dtype).reshape(entry.shape)


# ---- tensors kept as they are --------------------------------------------------------------------------


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """What two tensors share exactly when they are the same memory seen in the same way."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _kept_type(name: str, tensor: Tensor, lossy: bool) -> torch.dtype:
    if tensor.dtype not in DTYPES.values():
        raise TrialError(f"A coded model holds plain numbers; {name} is {tensor.dtype}. Convert it in the task.")
    if tensor.dtype in _INTEGERS and tensor.numel():
        low, high = int(tensor.min()), int(tensor.max())
        return next(kind for kind in _INTEGERS if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)
    halved = lossy and tensor.dim() < 2 and tensor.dtype in (torch.float32, torch.float64)
    return torch.float16 if halved and _safe_in_half(tensor) else tensor.dtype


def _safe_in_half(tensor: Tensor) -> bool:
    limits, magnitude = torch.finfo(torch.float16), tensor.detach().abs()
    normal = (magnitude >= limits.smallest_normal) & (magnitude <= limits.max)
    return bool((normal | (magnitude == 0)).all())


def _to_bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _from_bytes(own: bytes, entry: Entry) -> Tensor:
    if entry.count == 0:
        return torch.empty(entry.shape, dtype=entry.dtype)
    kept = torch.frombuffer(bytearray(own), dtype=DTYPES[str(entry.form)])
    return kept.reshape(entry.shape).to(entry.dtype)
