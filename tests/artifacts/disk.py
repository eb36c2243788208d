"""A disk on which the n-th operation goes wrong: it fails, is torn, or is the last before the power goes.

    with Disk(tmp_path, Fault("power", 3)) as disk:
        …
    disk.lose()  # what was not synced is torn, names whose folder was not synced are gone

Operations are opening for writing, writing, syncing, renaming, linking, and making folders, below one folder.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, final
from unittest.mock import patch

Kind = Literal["full", "broken", "torn", "power"]
KINDS: Final[tuple[Kind, ...]] = ("full", "broken", "torn", "power")
_CODES: Final = {"full": errno.ENOSPC, "broken": errno.EIO, "torn": errno.EIO}


class PowerLossError(BaseException):
    """The machine is off: nothing that is done afterwards reaches the disk."""


@dataclass(frozen=True)
class Fault:
    kind: Kind
    at: int


@final
class Disk:
    """Counts the operations below a folder; `count` says how many there were."""

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.root, self.count = root, 0
        self._fault, self._off = fault, False
        self._unsynced: set[Path] = set()
        self._undo: list[_Undo] = []
        self._patches = [
            patch.object(os, "fsync", self._fsync(os.fsync)),
            patch.object(os, "replace", self._rename(os.replace)),
            patch.object(os, "rename", self._rename(os.rename)),
            patch.object(os, "link", self._link(os.link)),
            patch.object(os, "mkdir", self._mkdir(os.mkdir)),
            patch.object(os, "unlink", self._unlink(os.unlink)),
            patch.object(io, "open", self._open(io.open)),
            patch.object(builtins, "open", self._open(io.open)),
        ]

    def __enter__(self) -> Self:
        for each in self._patches:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._patches:
            each.stop()

    def lose(self) -> None:
        """What the next start of the machine finds, at worst."""
        for path in self._unsynced:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        for each in reversed(self._undo):
            each.act(each.path)

    def _strike(self, path: Any, torn: Callable[[], object] = lambda: None) -> None:
        """Count an operation; the one that is to go wrong does."""
        if self._off:
            raise PowerLossError
        if not isinstance(path, str | Path) or not Path(path).absolute().is_relative_to(self.root):
            return
        self.count += 1
        if self._fault is None or self.count != self._fault.at:
            return
        if self._fault.kind in ("torn", "power"):
            torn()
        if self._fault.kind == "power":
            self._off = True
            raise PowerLossError
        code = _CODES[self._fault.kind]
        raise OSError(code, os.strerror(code))

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(handle: Any) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}"))
            self._strike(path)
            self._unsynced.discard(path)
            self._undo = [each for each in self._undo if each.path.parent != path]

        return fsync

    def _rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any) -> None:
            self._strike(target)
            old, new = Path(source).absolute(), Path(target).absolute()
            before = new.read_bytes() if new.is_file() else None
            real(source, target)
            self._unsynced = {_moved(path, old, new) for path in self._unsynced}
            for each in self._undo:
                each.path = _moved(each.path, old, new)

            def undo(path: Path) -> None:
                if path.exists():
                    real(path, old)
                for each in self._undo:
                    each.path = _moved(each.path, path, old)
                if before is not None:
                    path.write_bytes(before)

            self._undo.append(_Undo(new, undo))

        return rename

    def _link(self, real: Callable[..., None]) -> Callable[..., None]:
        def link(source: Any, target: Any, **given: Any) -> None:
            self._strike(target)
            real(source, target, **given)
            new = Path(target).absolute()
            if Path(source).absolute() in self._unsynced:
                self._unsynced.add(new)
            self._undo.append(_Undo(new, lambda path: path.unlink(missing_ok=True)))

        return link

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def mkdir(path: Any, *given: Any) -> None:
            self._strike(path)
            real(path, *given)
            self._undo.append(_Undo(Path(path).absolute(), lambda made: shutil.rmtree(made, ignore_errors=True)))

        return mkdir

    def _unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def unlink(path: Any, **given: Any) -> None:
            if self._off:
                raise PowerLossError
            real(path, **given)

        return unlink

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
            if not set(mode) & set("wxa+"):
                return real(file, mode, *given, **named)
            path = Path(os.readlink(f"/proc/self/fd/{file}")) if isinstance(file, int) else file
            self._strike(path)
            new, name = not isinstance(file, int) and not os.path.lexists(path), Path(path).absolute()
            made = real(file, mode, *given, **named)
            self._unsynced.add(name)
            if new:
                self._undo.append(_Undo(name, lambda path: path.unlink(missing_ok=True)))
            return _Writing(made, lambda torn: self._strike(path, torn))

        return opened


@dataclass
class _Undo:
    """How a name goes that its folder was not synced with."""

    path: Path
    act: Callable[[Path], object]


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old) if path.is_relative_to(old) else path


class _Writing:
    """A file whose writes are operations; a torn one leaves half of what was to be written."""

    def __init__(self, file: Any, strike: Callable[[Callable[[], object]], None]) -> None:
        self._file, self._strike = file, strike

    def write(self, data: Any) -> Any:
        self._strike(lambda: (self._file.write(data[: len(data) // 2]), self._file.flush()))
        written = self._file.write(data)
        self._file.flush()
        return written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
