"""Where trials leave their files: a local folder, or a place that fsspec knows, such as `s3://bucket/prefix`.

A file is there whole or not at all, never changes once it is there, and is read back only if it is what was written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from rank_search.errors import ArtifactError, to_install
from rank_search.point import Artifact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PART: Final = ".part"
"""How the names of unfinished files end: a killed process may leave one in a local folder."""

_FOLDER_CANNOT_SYNC: Final = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)
_CREDENTIALS: Final = re.compile(
    r"(?<=://)(?P<key>[^/:@]*):(?!\d+/)(?P<secret>.*?@(?:[^/@]*@)*)"  # NAME:SECRET@, which is no HOST:PORT/
)
_OPTIONS_OF_S3: Final = ("key", "secret")
_OPTIONS: Final = ("username", "password")


@final
class ArtifactStore:
    """The files of one study. It can be pickled, and holds nothing open.

    Credentials come from the environment or from fsspec's configuration, on every machine that reads or writes:
    for S3 `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a profile or a role; for a server of one's own
    `AWS_ENDPOINT_URL` too. Those in a URL (`s3://KEY:SECRET@bucket/prefix`) are used, and shown nowhere.

    An object store takes a file whole or not at all. Where another kind of server keeps half of one, reading says
    so, and writing it again repairs it. A server's folders are not made here, buckets neither.

    Attributes:
        location: where the files are, as given, without secrets.

    >>> store = ArtifactStore("memory://doctest")
    >>> artifact = store.write("model", "some point", ".bin", b"content")
    >>> store.read(artifact)
    b'content'
    """

    def __init__(self, location: str | Path) -> None:
        given = str(location)
        self.location = _CREDENTIALS.sub("", given)
        is_url = "://" in given and not given.startswith("file://")
        self._place: _Place = _Server(given) if is_url else _Folder(given)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def write(self, kind: str, stem: str, suffix: str, data: bytes) -> Artifact:
        """Keep the data under a name of its own, and return only when it is there to stay.

        The name is made of the stem's and the digest's first 16 characters: the same content twice is one file.

        Raises:
            ArtifactError: it cannot be written (full, read-only, out of reach); no half of it is left.
        """
        digest = hashlib.sha256(data).hexdigest()
        name = _plain(f"{stem[:16]}-{digest[:16]}{suffix}")
        advice = "No half of it is left. Make room or check the rights, or choose another place, and run again."
        with self._trying(f"{name} ({len(data)} bytes)", "written", advice):
            self._place.put(name, data)
        return Artifact(kind, name, digest, len(data))

    def read(self, artifact: Artifact) -> bytes:
        """The content of an artifact; an absolute path is read where it is.

        Raises:
            ArtifactError: it is missing, out of reach, or not what was written.
        """
        location = artifact.location
        is_outside = Path(location).is_absolute()
        place = _Folder(str(Path(location).parent)) if is_outside else self._place
        name = Path(location).name if is_outside else _plain(location)
        shown = location if is_outside else f"{self.location}/{location}"
        with self._trying(shown, "read", "Restore it from a copy, or run the trial again."):
            data = place.get(name)
        if (len(data), hashlib.sha256(data).hexdigest()) != (artifact.bytes, artifact.sha256):
            raise ArtifactError(
                f"An artifact stays as it was written; {shown} has {len(data)} bytes and another "
                f"SHA-256 than recorded ({artifact.bytes} bytes). Restore it from a copy, or run the trial again."
            )
        return data

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine.

        Raises:
            ArtifactError: it cannot be removed.
        """
        with self._trying(_plain(name), "removed", "Check the rights."):
            self._place.remove(name)

    def clear(self, names: Iterable[str]) -> None:
        """Remove the files, and a local folder that is empty then. What lies outside is not the study's, and stays.

        Raises:
            ArtifactError: one cannot be removed.
        """
        for name in names:
            if not Path(name).is_absolute():
                self.delete(name)
        self._place.leave()

    def names(self) -> list[str]:
        """All files by name, sorted, unfinished ones too (see `PART`); none if the folder is not there yet.

        Raises:
            ArtifactError: they cannot be listed.
        """
        with self._trying("the list of files", "read", "Check the address and the rights."):
            return sorted(self._place.names())

    @contextmanager
    def _trying(self, what: str, done: str, advice: str) -> Iterator[None]:
        try:
            yield
        except ArtifactError:
            raise
        except self._place.failures as error:
            raise ArtifactError(
                f"A study's artifacts are kept in {self.location}; {what} could not be {done}: "
                f"{self._place.said(error)}. {advice}"
            ) from None


def artifacts_at(recorded: str, default: Path) -> ArtifactStore:
    """The artifacts of a study: at the place that the store has recorded, or at the default place if that is empty.

    A recorded name is that of a folder beside the default one: the study has been renamed.
    """
    is_name = recorded and "://" not in recorded and not Path(recorded).is_absolute()
    return ArtifactStore(default.parent / recorded if is_name else recorded or default)


def _plain(name: str) -> str:
    """The name, if it is one.

    Raises:
        ArtifactError: it leads somewhere else.
    """
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ArtifactError(
            f"An artifact is a file in its study's folder, and its location the file's name; found {name!r}. "
            "The store's record of it was changed: restore the store from a copy."
        )
    return name


class _Place(ABC):
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

    def leave(self) -> None:
        """Remove the place itself, if it is a folder and empty."""
        return

    def said(self, error: Exception) -> str:
        """What went wrong, in one line."""
        reason = error.strerror if isinstance(error, OSError) else None
        return " ".join((reason or f"{type(error).__name__}: {error}").split()).rstrip(". ")


@final
class _Folder(_Place):
    """A local folder, made when it is first written to."""

    failures = (OSError,)

    def __init__(self, location: str) -> None:
        self._path = Path(location.removeprefix("file://")).absolute()

    def put(self, name: str, data: bytes) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        part = self._path / f".{os.urandom(8).hex()}{PART}"
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(self._path)

    def get(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        try:
            with os.scandir(self._path) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []

    def leave(self) -> None:
        with suppress(OSError):  # not empty: other files stay
            self._path.rmdir()


def _sync_folder(path: Path) -> None:
    """Bring the renaming to the disk too, where the file system can do that."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _FOLDER_CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


@final
class _Server(_Place):
    """A folder or prefix on a server. The connection is fsspec's: opened when needed, one for each process."""

    failures = (Exception,)  # every driver raises errors of its own

    def __init__(self, url: str) -> None:
        found = _CREDENTIALS.search(url)
        self._url = _CREDENTIALS.sub("", url).rstrip("/")
        self._secrets = (found["key"], found["secret"].removesuffix("@")) if found else ()

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

    def said(self, error: Exception) -> str:
        line = super().said(error)
        for secret in filter(None, self._secrets):
            line = line.replace(secret, "***")
        return line

    def _advice(self) -> str:
        if not self._url.startswith("s3"):
            return "Install it."
        return f"Run, in the folder of rank-search: {to_install('s3')}."

    def _opened(self) -> tuple[AbstractFileSystem, str]:
        from fsspec.core import url_to_fs

        keys = _OPTIONS_OF_S3 if self._url.startswith("s3") else _OPTIONS
        try:
            files, path = url_to_fs(self._url, **dict(zip(keys, self._secrets, strict=False)))
        except ImportError as error:
            raise ArtifactError(
                f"Artifacts at {self._url} need a package that is not installed: {error}. {self._advice()}"
            ) from None
        return files, str(path).rstrip("/")
