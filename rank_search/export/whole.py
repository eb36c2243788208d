"""An export is there whole or not at all, and never in the place of something else."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rank_search.basics import PART
from rank_search.errors import ExportError


def check_free(target: Path, kind: str) -> None:
    """Refuse to write over anything.

    Args:
        kind: what is written, such as "an export makes its own folder".

    Raises:
        ExportError: something of that name is there.
    """
    if os.path.lexists(target):
        raise ExportError(f"{target} already exists; {kind}. Choose another name.")


@contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A new hidden folder beside what is to come, which is gone afterwards: what is not moved out of it leaves nothing.

    Raises:
        ExportError: it could not be made, or what was done inside raised OSError.
    """
    made = target.absolute().with_name(f".{target.name}.{secrets.token_hex(4)}{PART}")
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
