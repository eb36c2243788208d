"""Waiting until an artifact store has room again: no trial is spent on a full disk."""

from __future__ import annotations

import time

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError, PlaceError
from rank_search.observe import logs


def await_room(artifacts: ArtifactStore, trouble: ArtifactError, patience: float, every: float) -> None:
    """Wait until files can be written, trying again at intervals of seconds.

    Raises:
        ArtifactError: they still cannot after the given seconds of patience; `trouble` is its cause.
        PlaceError: waiting is of no use.
    """
    deadline = time.monotonic() + patience
    while (reason := _in_the_way(artifacts)) is not None:
        logs.artifacts_unwritable(artifacts.location, str(reason))
        if time.monotonic() >= deadline or isinstance(reason, PlaceError):
            raise reason from trouble
        time.sleep(every)


def _in_the_way(artifacts: ArtifactStore) -> ArtifactError | None:
    """Why no file can be written just now."""
    try:
        artifacts.delete(artifacts.write("probe", "probe", ".part", b"room?").location)
    except ArtifactError as error:
        return error
    return None
