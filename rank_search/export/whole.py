"""What is written is there whole or not at all, never in the place of something else, and readable as its owner set."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rank_search.errors import ExportError


def check_free(target: Path, kind: str) -> None:
    """Refuse to write over anything.

    Args:
        kind: what is written, such as "An export makes its own folder".

    Raises:
        ExportError: something of that name is there.
    """
    if os.path.lexists(target):
        raise ExportError(f"{kind}; {target} is there already. Name another one.")


@contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A new hidden folder beside what is to come, which is gone afterwards: what is not moved out of it leaves nothing.

    Raises:
        ExportError: it could not be made, or what was done inside raised OSError.
    """
    made = target.absolute().with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"{target} could not be made: {error.strerror or error}.") from error
    try:
        yield made
    except OSError as error:
        raise ExportError(
            f"{target} could not be written: {error.strerror or error}. Nothing is left of it."
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def publish(made: Path, target: Path) -> None:
    """Give a folder or a file its name, once it is on the disk, and with the mode of a file that is written plainly.

    Raises:
        FileExistsError: something has taken the name in the meantime.
    """
    files = list(made.iterdir()) if made.is_dir() else [made]
    mode = _mode_of_new_files(made.parent)
    for path in files:
        path.chmod(mode)
        _sync(path)
    if made.is_dir():
        _sync(made)
        _move_folder(made, target)
    else:
        _move_file(made, target)
    _sync(target.absolute().parent)


def _move_folder(made: Path, target: Path) -> None:
    if os.path.lexists(target):  # a folder of nothing would be replaced
        raise FileExistsError(17, f"{target} is there already")
    made.rename(target)


def _move_file(made: Path, target: Path) -> None:
    """A link is made only where nothing is; a file system without links is asked beforehand."""
    try:
        os.link(made, target)
    except FileExistsError:
        raise FileExistsError(17, f"{target} is there already") from None
    except OSError:
        _move_folder(made, target)


def _mode_of_new_files(folder: Path) -> int:
    probe = folder / f".{secrets.token_hex(4)}.mode"
    probe.touch(exist_ok=False)
    try:
        return probe.stat().st_mode & 0o777
    finally:
        probe.unlink()


def _sync(path: Path) -> None:
    """Wait for the disk; some file systems cannot do so for a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
