"""The file of a packed model, `.rsz`: preamble, manifest, payload. `docs/format.md` has every field.

The payload is exactly the coded bytes of the trial, so that their length is what the study counted as `bits`. The
manifest, compressed JSON, holds the graph and what is known of the trial. Tensors of the graph that are not in the
model's state (constants that the trace found) follow as a second coded byte string, mostly of none.
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

from rank_search.coding import decode
from rank_search.errors import ExportError, TrialError
from rank_search.export.loaded import from_json
from rank_search.export.sizes import sizes_in

MAGIC: Final = b"\x89RSZ\r\n\x1a\n"
VERSION: Final = 1
PREAMBLE: Final = struct.Struct("<8sHHIQQ")
"""Magic, version, 0, and the lengths of the manifest, the payload and the constants; a CRC-32 follows."""

LARGEST: Final = 1 << 28
"""Numbers that a file may claim unless more are allowed: a model of one gigabyte in 32 bits."""

_CHECK: Final = struct.Struct("<I")
_LONGEST_MANIFEST: Final = 1 << 26
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Packed:
    """A packed model.

    Attributes:
        manifest: the graph under "graph", the digests of payload and constants, and what is known of the trial.
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
        manifest = len(_deflated(self))
        return {
            "payload": len(self.payload),
            "manifest": manifest,
            "constants": len(self.constants),
            "preamble": PREAMBLE.size + _CHECK.size,
        }


def write_packed(packed: Packed, path: Path) -> None:
    """Write the file; `path` must not exist. Whoever calls writes to another name first, and renames."""
    manifest = _deflated(packed)
    preamble = PREAMBLE.pack(MAGIC, VERSION, 0, len(manifest), len(packed.payload), len(packed.constants))
    with path.open("xb") as file:
        file.write(preamble + _CHECK.pack(zlib.crc32(preamble + manifest)))
        for part in (manifest, packed.payload, packed.constants):
            file.write(part)


def _deflated(packed: Packed) -> bytes:
    digests = {"payload_sha256": _sha256(packed.payload), "constants_sha256": _sha256(packed.constants)}
    content = json.dumps({**packed.manifest, **digests}, separators=(",", ":"), ensure_ascii=False)
    return zlib.compress(content.encode(), 9)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
    size = path.stat().st_size
    start = file.read(PREAMBLE.size + _CHECK.size)
    if not start.startswith(MAGIC) or len(start) < PREAMBLE.size + _CHECK.size:
        raise ExportError(f"{path} is no packed model: it does not begin like one. Is it another file?")
    _, version, reserved, manifest, payload, constants = PREAMBLE.unpack_from(start)
    if version != VERSION or reserved:
        raise ExportError(
            f"{path} is a packed model of version {version}; this build reads version {VERSION}. Update rank-search."
        )
    if len(start) + manifest + payload + constants != size:
        raise _damaged(path, f"it says that it has {len(start) + manifest + payload + constants} bytes, and has {size}")
    if manifest > _LONGEST_MANIFEST:
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
        text = inflater.decompress(content, _LONGEST_MANIFEST)
        if not inflater.eof:
            raise ValueError("it is cut, or too long")
        found = json.loads(text)
        if not isinstance(found, dict) or not isinstance(found.get("graph"), dict):
            raise ValueError("it has no graph")
    except (ValueError, RecursionError, zlib.error) as error:
        raise _damaged(path, f"its manifest cannot be read ({type(error).__name__}: {error})") from error
    return found


def _part(file: BinaryIO, length: int, digest: object, path: Path) -> bytes:
    """The next bytes, as their digest says; the file's size was compared before memory is taken."""
    data, found = bytearray(), hashlib.sha256()
    while len(data) < length and (chunk := file.read(min(_CHUNK, length - len(data)))):
        data += chunk
        found.update(chunk)
    if found.hexdigest() != digest:
        raise _damaged(path, "the checksum of its weights does not hold")
    return bytes(data)


def _damaged(path: Path, why: str) -> ExportError:
    return ExportError(
        f"A packed model is read whole or not at all; {path} is damaged or cut short: {why}. Restore it from a copy, "
        "or pack the trial again."
    )
