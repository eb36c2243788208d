"""The file that `torch.export.save` writes, read as what it is: JSON, and the bytes of tensors.

Nothing is unpickled: what PyTorch pickles into such a file (sample inputs, objects, tensors of classes of their own) is
left alone where nothing needs it, and refused where something does.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.programs.numbers import DTYPES, numbered

_FORMAT: Final = "archive_format"
_MAJOR: Final = 8  # of PyTorch's schema: torch._export.serde.schema.SCHEMA_VERSION
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


@final
class Archive:
    """The parts of a file of `torch.export.save`, each read once, so that no more is read than the file is long."""

    def __init__(self, path: Path) -> None:
        """Look at what is in the file.

        Raises:
            TaskError: it is none that `torch.export.save` writes.
        """
        self.path = path
        try:
            self._zip = ZipFile(path)
        except FileNotFoundError:
            raise TaskError(f"There is no file {path}.") from None
        except (OSError, BadZipFile, ValueError, NotImplementedError) as error:
            raise self.refused(f"it is no archive that torch.export.save writes ({error})") from error
        self._left = path.stat().st_size
        self._parts = self._found()

    def refused(self, why: str) -> TaskError:
        """The error that says why the file is not read."""
        return TaskError(f"{self.path} cannot be read: {why}.")

    def _found(self) -> dict[str, ZipInfo]:
        """The parts by their names below the one folder that all of them lie in."""
        folders = {each.filename.partition("/")[0] for each in self._zip.infolist()}
        found: dict[str, ZipInfo] = {}
        for each in self._zip.infolist():
            name = each.filename.partition("/")[2]
            if name in found or len(folders) != 1:
                raise self.refused("its archive has two parts of one name, or not one folder for all of them")
            found[name] = each
        if _FORMAT not in found:
            raise self.refused(
                "it is no archive that torch.export.save of PyTorch 2.13 writes. If an older PyTorch wrote it, load it "
                "there, and save it with a newer one"
            )
        return found

    def close(self) -> None:
        """The file is not needed any more."""
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def program(self) -> Mapping[str, Any]:
        """The one program in it, as JSON.

        Raises:
            TaskError: there is none, or several, or of another version of the format.
        """
        models = [name for name in self._parts if name.startswith("models/")]
        if len(models) != 1 or not models[0].endswith(".json"):
            raise self.refused(f"it holds {len(models)} exported programs; one can be read")
        if "byteorder" in self and (order := self._bytes("byteorder").decode("ascii", "replace")) != sys.byteorder:
            raise self.refused(f"its numbers are in {order}-endian order, and this machine's are not")
        program: Mapping[str, Any] = self._json(models[0])
        version = program["schema_version"]["major"]
        if version != _MAJOR:
            raise self.refused(
                f"it is in version {version} of PyTorch's format, and version {_MAJOR} can be read. Load it with the "
                "PyTorch that wrote it, and save it with PyTorch 2.13"
            )
        self._name = models[0].removeprefix("models/").removesuffix(".json")
        return program

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by name; one of several names is one object."""
        return self._tensors("data/weights/", f"{self._name}_weights_config.json")

    def constants(self) -> dict[str, Tensor]:
        """Further tensors by name, which are not in the network's state."""
        return self._tensors("data/constants/", f"{self._name}_constants_config.json")

    def _tensors(self, folder: str, config: str) -> dict[str, Tensor]:
        if f"{folder}{self._name}.pt" in self:
            raise self.refused(
                f"{folder}{self._name}.pt is a pickle, which may run any code. Load it with the PyTorch that wrote it, "
                "and save it with PyTorch 2.13, which writes plain bytes"
            )
        kept: dict[str, bytearray] = {}
        made: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        for name, entry in self._json(folder + config)["config"].items():
            part = self._part_of(name, entry)
            if part not in kept:
                kept[part] = bytearray(self._bytes(folder + part))
            identity = json.dumps([part, entry["is_param"], entry["tensor_meta"]], sort_keys=True)
            if identity not in made:
                made[identity] = self._tensor(name, entry, kept[part])
            found[name] = made[identity]
        return found

    def _part_of(self, name: str, entry: Mapping[str, Any]) -> str:
        part = str(entry["path_name"])
        if entry["use_pickle"] or entry["tensor_meta"] is None or not part.startswith(("weight_", "tensor_")):
            raise self.refused(
                f"{name!r} is pickled, which may run any code: it is no plain tensor. Export a network whose "
                "parameters, buffers and constants are plain tensors"
            )
        if not _PLAIN_NAME.fullmatch(part):
            raise self.refused(f"{name!r} lies in a part that is called {part!r}")
        return part

    def _tensor(self, name: str, entry: Mapping[str, Any], content: bytearray) -> Tensor:
        """The tensor in some bytes, if it lies in them."""
        meta = entry["tensor_meta"]
        dtype: torch.dtype = numbered(meta["dtype"], DTYPES)
        size, stride = ([_whole(each) for each in meta[key]] for key in ("sizes", "strides"))
        offset = _whole(meta["storage_offset"])
        count = math.prod(size)
        last = offset + sum((each - 1) * step for each, step in zip(size, stride, strict=True))
        inside = last < len(content) // dtype.itemsize and count <= len(content) // dtype.itemsize
        if count and not inside:
            raise self.refused(
                f"{name!r} is said to be of the shape {tuple(size)}, and only {len(content):,} bytes are there for it. "
                "If it is an expanded tensor, make it contiguous before the export"
            )
        flat = torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)
        tensor = torch.as_strided(flat, size, stride, offset) if count else flat.reshape(size)
        return nn.Parameter(tensor, bool(meta["requires_grad"])) if entry["is_param"] else tensor

    def _json(self, name: str) -> Any:
        return json.loads(self._bytes(name).decode("utf-8"))

    def _bytes(self, name: str) -> bytes:
        """A part that is as long as it says, and lies in the file as it is."""
        if name not in self._parts:
            raise self.refused(f"the part {name} is missing")
        part = self._parts[name]
        if part.compress_type != ZIP_STORED or part.file_size != part.compress_size:
            raise self.refused(f"the part {name} is compressed, which torch.export.save never does")
        self._left -= part.file_size
        if self._left < 0:
            raise self.refused(f"its parts are said to be longer than the file is ({name} with them)")
        try:
            return self._zip.read(part)
        except (OSError, EOFError, BadZipFile, RuntimeError, NotImplementedError) as error:
            raise self.refused(f"the part {name} is damaged ({error})") from error


def _whole(value: Mapping[str, Any]) -> int:
    """A size that is a number; one that is an expression is not worked out."""
    number = value["as_int"]
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"a size is a whole number; found {number!r}")
    return number
