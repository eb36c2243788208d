"""Where files can be kept: a local folder, or a server that fsspec knows."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from rank_search.basics import masked, masked_options, replace_whole, split_credentials, sync
from rank_search.errors import PlaceError, to_install

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_OPTIONS_OF_S3: Final = ("key", "secret")
_OPTIONS: Final = ("username", "password")


def place_at(location: str) -> Place:
    """The place at a path or a URL."""
    is_url = "://" in location and not location.startswith("file://")
    return _Server(location) if is_url else Folder(location)


class Place(ABC):
    """What a store needs of a place."""

    failures: tuple[type[Exception], ...]

    @abstractmethod
    def put(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def get(self, name: str) -> bytes: ...

    @abstractmethod
    def remove(self, name: str) -> None: ...

    @abstractmethod
    def names(self) -> list[str]: ...

    @abstractmethod
    def identity(self) -> str:
        """What no copy of the place has in common with it."""

    def check(self) -> None:
        """Look whether the place could be used, as far as this machine alone can tell.

        Raises:
            PlaceError: it could not.
        """
        return

    def leave(self) -> None:
        """Remove the place itself, if it is a folder and empty."""
        return

    def said(self, error: Exception) -> str:
        """What went wrong, in one line."""
        reason = error.strerror if isinstance(error, OSError) else None
        return " ".join((reason or f"{type(error).__name__}: {error}").split()).rstrip(". ")


@final
class Folder(Place):
    """A local folder, made when it is first written to."""

    failures = (OSError,)

    def __init__(self, location: str) -> None:
        self._path = Path(location.removeprefix("file://")).absolute()
        self._is_kept = False

    def put(self, name: str, data: bytes) -> None:
        self._make()
        replace_whole(self._path / name, data)

    def _make(self) -> None:
        """The folder, and the folders on the way, are on the disk before a file in it is."""
        missing = [each for each in (self._path, *self._path.parents) if not each.exists()]
        self._path.mkdir(parents=True, exist_ok=True)
        if missing or not self._is_kept:
            for each in {self._path.parent, self._path.parent.parent, *(folder.parent for folder in missing)}:
                with suppress(PermissionError):  # not ours, so it was there before
                    sync(each)
        self._is_kept = True

    def get(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def leave(self) -> None:
        with suppress(OSError):  # not empty: other files stay
            self._path.rmdir()

    def identity(self) -> str:
        """The folder's inode: a path leads to another folder on another machine. It is made, if need be."""
        self._path.mkdir(parents=True, exist_ok=True)
        return str(self._path.stat().st_ino)

    def names(self) -> list[str]:
        try:
            with os.scandir(self._path) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []


@final
class _Server(Place):
    """A folder or prefix on a server. The connection is fsspec's: opened when needed, one for each process."""

    failures = (Exception,)  # every driver has its own errors

    def __init__(self, url: str) -> None:
        shown, self._secrets = split_credentials(url)
        self._url = shown.rstrip("/")

    def check(self) -> None:
        try:
            self._opened()
        except PlaceError:
            raise
        except self.failures:  # such as wrong options: told with the first file
            return

    def put(self, name: str, data: bytes) -> None:
        files, path = self._opened()
        files.pipe_file(f"{path}/{name}", data)

    def get(self, name: str) -> bytes:
        files, path = self._opened()
        data: bytes = files.cat_file(f"{path}/{name}")
        return data

    def remove(self, name: str) -> None:
        files, path = self._opened()
        try:
            files.rm_file(f"{path}/{name}")
        except FileNotFoundError:
            return

    def names(self) -> list[str]:
        files, path = self._opened()
        files.invalidate_cache()
        try:
            found = files.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return [str(each["name"]).rpartition("/")[2] for each in found if each["type"] == "file"]

    def identity(self) -> str:
        return self._url

    def said(self, error: Exception) -> str:
        return masked(super().said(error), self._secrets)

    def _opened(self) -> tuple[AbstractFileSystem, str]:
        from fsspec.core import url_to_fs

        keys = _OPTIONS_OF_S3 if self._url.startswith("s3") else _OPTIONS
        try:
            files, path = url_to_fs(self._url, **dict(zip(keys, self._secrets, strict=False)))
        except ImportError as error:
            advice = (
                f"Run, in the folder of rank-search: {to_install('s3')}."
                if self._url.startswith("s3")
                else "Install it."
            )
            raise PlaceError(
                f"The package that artifacts at {masked_options(self._url)} need is not installed: {error}. {advice}"
            ) from None
        except ValueError as error:
            raise PlaceError(
                f"In {masked_options(self._url)}, no file can be kept: {self.said(error)}. Give a folder, or a URL "
                "that fsspec knows."
            ) from None
        return files, str(path).rstrip("/")
