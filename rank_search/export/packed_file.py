"""The file of a packed model, `.rsz`: preamble, manifest, payload. `docs/format.md` has every field.

The payload is exactly the coded bytes of the trial, so that their length is what the study counted as `bits`. The
manifest (`short_manifest`) holds the graph and, if the payload is large beside it, what is known of the trial. Tensors
of the graph that are not in the model's state (constants that the trace found) follow as a second coded byte string,
mostly of none.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from torch import Tensor, nn

from rank_search.coding import Wire, decode
from rank_search.errors import ExportError, TrialError
from rank_search.export.loaded import from_json
from rank_search.export.short_manifest import LONGEST, deflated, inflated
from rank_search.programs import sizes_in

VERSION: Final = 2

MAGIC: Final = b"\x89RSZ\r\n\x1a\n"
PREAMBLE: Final = struct.Struct("<8sHHIQQ")
"""Of version 1: magic, version, 0, and the lengths of manifest, payload and constants; a CRC-32 follows."""

LARGEST: Final = 1 << 28
"""Numbers that a file may claim unless more are allowed: a model of one gigabyte in 32 bits."""

_START: Final = MAGIC[:4] + bytes([VERSION])
_CHECK: Final = struct.Struct("<I")
_VARINT: Final = 9  # bytes, at most
_CHUNK: Final = 1 << 20
_NO_MANIFEST: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError, zlib.error)


@dataclass(frozen=True)
class Packed:
    """A packed model.

    Attributes:
        manifest: the graph under "graph", and what is known of the trial.
        payload: the trial's coded bytes.
        constants: coded tensors of the graph beside the model's state; empty if there are none.
    """

    manifest: Mapping[str, Any]
    payload: bytes = field(repr=False)
    constants: bytes = field(default=b"", repr=False)

    def tensors(self, largest: int = LARGEST) -> dict[str, Tensor]:
        """Every tensor that the graph may name.

        Args:
            largest: refuse a file that claims more numbers, before memory is taken for them: a few bytes can stand
                for any number of equal ones.

        Raises:
            ExportError: they cannot be decoded.
        """
        try:
            found = decode(self.payload, largest)
            return found | (decode(self.constants, largest) if self.constants else {})
        except TrialError as error:
            raise ExportError(
                f"The packed model's tensors cannot be decoded: {error} (If you trust the file, "
                "`largest` of `rank_search.load` and `rank-search unpack` allows more numbers.)"
            ) from error

    def model(self, largest: int = LARGEST) -> nn.Module:
        """The module, in evaluation mode; no code of the file's is run, and nothing unpickled.

        Raises:
            ExportError: graph and tensors do not make a model.
        """
        return from_json(self.manifest["graph"], self.tensors(largest), sizes_in(self.manifest))

    def sizes(self) -> dict[str, int]:
        """Bytes of each part of the file."""
        manifest = deflated(self.manifest, len(self.payload))
        return {
            "payload": len(self.payload),
            "manifest": len(manifest),
            "constants": len(self.constants),
            "preamble": len(_START) + _CHECK.size + len(_lengths(manifest, self.payload)),
        }


def write_packed(packed: Packed, path: Path) -> None:
    """Write the file; `path` must not exist. Whoever calls writes to another name first, and renames."""
    manifest = deflated(packed.manifest, len(packed.payload))
    parts = (_lengths(manifest, packed.payload), manifest, packed.payload, packed.constants)
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    with path.open("xb") as file:
        file.write(_START + _CHECK.pack(check))
        for part in parts:
            file.write(part)


def _lengths(manifest: bytes, payload: bytes) -> bytes:
    wire = Wire()
    wire.put(len(manifest))
    wire.put(len(payload))
    return wire.written()


def read_packed(path: Path) -> Packed:
    """The parts of a file, once their lengths and checksums are right; read in chunks, and never past its length.

    Raises:
        ExportError: the file cannot be read, is no packed model, of another version, damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read(file: BinaryIO, path: Path) -> Packed:
    start = file.read(len(MAGIC))
    if start == MAGIC:
        return _read_first(file, path)
    if not start.startswith(_START[:-1]) or len(start) <= len(_START):
        raise ExportError(f"{path} is no packed model: it does not begin like one. Is it another file?")
    if start[len(_START) - 1] != VERSION:
        raise _unknown(path, start[len(_START) - 1])
    return _read_second(file, path)


def _unknown(path: Path, version: int) -> ExportError:
    return ExportError(
        f"{path} is a packed model of version {version}; this build reads versions 1 and {VERSION}. Update rank-search."
    )


def _read_second(file: BinaryIO, path: Path) -> Packed:
    file.seek(len(_START))
    kept = file.read(_CHECK.size)
    head = file.read(2 * _VARINT)
    try:
        wire = Wire(head)
        lengths = wire.get(LONGEST), wire.get()
    except ValueError as error:
        raise _damaged(path, f"its lengths cannot be read ({error})") from error
    used = head[: len(head) - len(wire.rest())]
    begin = len(_START) + len(kept) + len(used)
    rest = path.stat().st_size - begin - sum(lengths)
    if rest < 0 or len(kept) < _CHECK.size:
        raise _damaged(
            path, f"it says that it has at least {begin + sum(lengths)} bytes, and has {begin + sum(lengths) + rest}"
        )
    file.seek(begin)
    parts, check = [], zlib.crc32(used)
    for length in (*lengths, rest):
        part = _bytes(file, length)
        parts.append(part)
        check = zlib.crc32(part, check)
    if check != _CHECK.unpack(kept)[0]:
        raise _damaged(path, "its checksum does not hold")
    try:
        manifest = inflated(parts[0])
    except _NO_MANIFEST as error:
        raise _damaged(path, f"its manifest cannot be read ({type(error).__name__}: {error})") from error
    return Packed(manifest, *parts[1:])


def _bytes(file: BinaryIO, length: int) -> bytes:
    """The next bytes, in chunks; the file's size was compared before memory is taken."""
    data = bytearray()
    while len(data) < length and (chunk := file.read(min(_CHUNK, length - len(data)))):
        data += chunk
    return bytes(data)


# ---- version 1 -------------------------------------------------------------------------------------------


def _read_first(file: BinaryIO, path: Path) -> Packed:
    file.seek(0)
    size = path.stat().st_size
    start = file.read(PREAMBLE.size + _CHECK.size)
    if len(start) < PREAMBLE.size + _CHECK.size:
        raise ExportError(f"{path} is no packed model: it does not begin like one. Is it another file?")
    _, version, reserved, manifest, payload, constants = PREAMBLE.unpack_from(start)
    if version != 1 or reserved:
        raise _unknown(path, version)
    if len(start) + manifest + payload + constants != size:
        raise _damaged(path, f"it says that it has {len(start) + manifest + payload + constants} bytes, and has {size}")
    if manifest > LONGEST:
        raise _damaged(path, f"its manifest has {manifest} bytes")
    content = file.read(manifest)
    if zlib.crc32(start[: PREAMBLE.size] + content) != _CHECK.unpack_from(start, PREAMBLE.size)[0]:
        raise _damaged(path, "the checksum of its manifest does not hold")
    found = _manifest(content, path)
    parts = [
        _part(file, length, found.get(key), path)
        for length, key in ((payload, "payload_sha256"), (constants, "constants_sha256"))
    ]
    return Packed(found, *parts)


def _manifest(content: bytes, path: Path) -> dict[str, Any]:
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(content, LONGEST)
        if not inflater.eof:
            raise ValueError("it is cut, or too long")
        found = json.loads(text)
        if not isinstance(found, dict) or not isinstance(found.get("graph"), dict):
            raise ValueError("it has no graph")
    except (ValueError, RecursionError, zlib.error) as error:
        raise _damaged(path, f"its manifest cannot be read ({type(error).__name__}: {error})") from error
    return found


def _part(file: BinaryIO, length: int, digest: object, path: Path) -> bytes:
    """The next bytes, as their digest says."""
    data = _bytes(file, length)
    if hashlib.sha256(data).hexdigest() != digest:
        raise _damaged(path, "the checksum of its weights does not hold")
    return data


def _damaged(path: Path, why: str) -> ExportError:
    return ExportError(
        f"A packed model is read whole or not at all; {path} is damaged or cut short: {why}. Restore it from a copy, "
        "or pack the trial again."
    )
