"""Files that a trial leaves: written whole or not at all, and read back only if they are what was written."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from rank_search.errors import TrialError
from rank_search.point import Artifact


def write_artifact(folder: Path, kind: str, location: str, data: bytes) -> Artifact:
    """Write `folder/location` under a temporary name, sync it to the disk, and rename it.

    Raises:
        TrialError: it cannot be written (disk full, no permission); nothing is left of it.
    """
    target = folder / location
    temporary: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise TrialError(
            f"A trial's files are kept in the artifact folder; {target} ({len(data)} bytes) could not be written: "
            f"{error.strerror or error}. Nothing is left of it; make room or choose another folder, and run again."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return Artifact(kind, location, hashlib.sha256(data).hexdigest(), len(data))


def read_artifact(folder: Path, artifact: Artifact) -> bytes:
    """The content of an artifact.

    Raises:
        TrialError: the file cannot be read, or is not what was written.
    """
    path = folder / artifact.location
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrialError(
            f"An artifact is a readable file; {path}: {error.strerror or error}. Restore it from a copy."
        ) from error
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        raise TrialError(
            f"An artifact stays as it was written; {path} has {len(data)} bytes and another SHA-256 than recorded "
            f"({artifact.bytes} bytes). Restore it from a copy, or run the trial's point again."
        )
    return data


def to_safetensors(state: dict[str, Tensor]) -> bytes:
    """A state dict as safetensors; tensors that share memory are written out one by one."""
    alone = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    return safetensors.torch.save(alone)


def from_safetensors(data: bytes) -> dict[str, Tensor]:
    """The state dict in safetensors bytes.

    Raises:
        TrialError: they are no safetensors.
    """
    try:
        loaded: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise TrialError(f"A model artifact is in safetensors format; these bytes are not: {error}.") from error
    return loaded
