"""Files that are there whole or not at all: written under a hidden name, brought to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

PART: Final = ".part"
"""How the names of unfinished files end: a killed process may leave one."""

_CANNOT_SYNC: Final = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)


def replace_whole(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file, in place of what was there; whoever reads meanwhile sees the old one or the new one.

    Args:
        path: of two writers the later wins; a link leads to the file that is replaced, which keeps its mode.
        durable: return only when it is on the disk to stay.

    Raises:
        OSError: it cannot be written. No half of it is left, and what was there is unchanged.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{secrets.token_hex(8)}{PART}")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if path.exists():
            part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def publish(made: Path, target: Path) -> None:
    """Give a new folder or file its name, once it is on the disk, and with the mode of a file that is written plainly.

    Raises:
        FileExistsError: something has taken the name in the meantime.
        OSError: it cannot be brought to the disk.
    """
    files = list(made.iterdir()) if made.is_dir() else [made]
    mode = _mode_of_new_files(made.parent)
    for path in files:
        path.chmod(mode)
        sync(path)
    if made.is_dir():
        sync(made)
        _move_folder(made, target)
    else:
        _move_file(made, target)
    with suppress(OSError):  # it is there: what could be said of it is no failure
        sync(target.absolute().parent)


def sync(path: Path) -> None:
    """Wait for the disk to have a file, or the names in a folder; some file systems cannot do so for a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def _move_folder(made: Path, target: Path) -> None:
    if os.path.lexists(target):  # an empty folder would be replaced
        raise FileExistsError(errno.EEXIST, f"{target} already exists")
    made.rename(target)


def _move_file(made: Path, target: Path) -> None:
    """A link is made only where nothing is; a file system without links is asked beforehand."""
    try:
        os.link(made, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, f"{target} already exists") from None
    except OSError:
        _move_folder(made, target)


def _mode_of_new_files(folder: Path) -> int:
    probe = folder / f".{secrets.token_hex(4)}.mode"
    probe.touch(exist_ok=False)
    try:
        return probe.stat().st_mode & 0o777
    finally:
        probe.unlink()
