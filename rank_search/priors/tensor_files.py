"""A folder of tensors: written whole or not at all, and checked when read."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rank_search.basics import replace_whole
from rank_search.errors import LaunchError

_log = logging.getLogger(__name__)

_DIGEST: Final = "sha256"


class TensorFiles:
    """Named sets of tensors as safetensors files, for several processes at once.

    A file is written under a unique name and then renamed, so a reader sees all of it or none, and of two
    writers the later wins. Each file holds a digest of its tensors; one that is cut off or altered is as good
    as absent. A folder that cannot be written to (full, read-only, gone) is given up after one warning: a
    cache may forget, but it never stops the work.

    Args:
        mapped: whether tensors that are loaded stay in their file, of which the system reads what is looked at, and
            forgets it again where memory is scarce.
    """

    def __init__(self, folder: Path, mapped: bool = False) -> None:
        self._folder = folder
        self.mapped = mapped
        self._writable = True

    def load(self, name: str) -> dict[str, Tensor] | None:
        """The tensors saved under this name; None if there are none, or if the file is damaged."""
        path = self._path(name)
        try:
            tensors = safetensors.torch.load_file(path) if self.mapped else safetensors.torch.load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            _log.warning("The cache file %s cannot be read and is made anew: %s.", path, error)
            return None
        found = tensors.pop(_DIGEST, None)
        if found is None or found.tolist() != list(digest(tensors)):
            _log.warning("The cache file %s is damaged (its digest does not fit) and is made anew.", path)
            return None
        return tensors

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Save the tensors under this name, in place of what was there."""
        if not self._writable:
            return
        signature = torch.tensor(list(digest(tensors)), dtype=torch.uint8)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            here = {key: each.cpu() for key, each in tensors.items()}
            content = safetensors.torch.save({**here, _DIGEST: signature})
            replace_whole(self._path(name), content, durable=False)
        except OSError as error:
            self._writable = False
            _log.warning("The cache folder %s cannot be written to; going on in memory: %s.", self._folder, error)

    def remove(self, name: str) -> None:
        """Remove what was saved under this name, if there is anything and it can be removed."""
        with suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Save them, and hand them back: those in the file, if it is to be mapped and could be written."""
        self.save(name, tensors)
        return (self.load(name) or tensors) if self.mapped and self._writable else tensors

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


@final
class KeptTensors(Mapping[str, Tensor]):
    """Tensors in files of a folder, mapped from there when they are asked for; pickled, only where they are."""

    def __init__(self, folder: Path) -> None:
        self._files, self._names = TensorFiles(folder, mapped=True), dict[str, str]()
        self._others: dict[str, Tensor] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep these, too; in memory, if the folder cannot be written to."""
        for name, tensor in tensors.items():
            file = f"tensor-1-{digest({'tensor': tensor}).hex()}"
            self._names[name] = file
            if (kept := self._files.keep(file, {"tensor": tensor})["tensor"]) is tensor:
                self._others[name] = kept

    def __getitem__(self, name: str) -> Tensor:
        if name in self._others:
            return self._others[name]
        found = self._files.load(self._names[name])
        if found is None:
            raise LaunchError(
                f"What was seen of layer {name!r} is kept in the folder of spectra until a search ends, and is no "
                "longer there. Run the same command again, and leave the folder alone meanwhile."
            )
        return found["tensor"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def digest(tensors: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of names, dtypes, shapes and contents; memory formats and devices do not matter."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(_bytes_of(tensor))
    return hashed.digest()


def numbers_of(tensor: Tensor) -> bytes:
    """The bytes of a tensor's numbers in their order, for any memory format and device."""
    return bytes(_bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> memoryview:
    """The same, not copied where they lie in their order already."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # PyTorch gives an empty tensor any stride, and views as bytes only what has a stride of one.
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def user_cache_folder() -> Path:
    """Where spectra and bases are kept if nobody says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rank-search" / "spectra"
