"""Where trials leave their files: a local folder, or a place that fsspec knows, such as `s3://bucket/prefix`.

A file is there whole or not at all, never changes once it is there, and is read back only if it is what was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from rank_search.artifacts.places import Folder, Place, place_at
from rank_search.basics import masked_options, split_credentials
from rank_search.errors import ArtifactError
from rank_search.point import Artifact

STEM: Final = 16
"""So many characters of a file's stem are in its name, and as many of its digest."""

_TENANTS: Final = "stores"
"""The folder, inside a study's, of a note for each store that uses the files."""


@final
@dataclass(frozen=True)
class Tenant:
    """A store that uses a place.

    Attributes:
        identity: what no copy of the store has in common with it.
        location: where it is, without secrets.
    """

    identity: str
    location: str


@final
class ArtifactStore:
    """The files of one study. It can be pickled, and holds nothing open.

    Credentials come from the environment or from fsspec's configuration, on every machine that reads or writes:
    for S3 `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a profile or a role; for another server
    `AWS_ENDPOINT_URL` too. Those in a URL (`s3://KEY:SECRET@bucket/prefix`) are used, and shown nowhere.

    An object store takes a file whole or not at all. Where another kind of server keeps half of one, reading says
    so, and writing it again repairs it. A server's folders are not made here, buckets neither.

    Attributes:
        location: where the files are, as given, without secrets.

    Args:
        tenant: the store whose trials the files belong to.

    >>> store = ArtifactStore("memory://doctest")
    >>> artifact = store.write("model", "some point", ".bin", b"content")
    >>> store.read(artifact)
    b'content'
    """

    def __init__(self, location: str | Path, tenant: Tenant | None = None) -> None:
        self._given, self._tenant = str(location), tenant
        self.location = masked_options(split_credentials(self._given)[0]) if "://" in self._given else self._given
        self._place: Place = place_at(self._given)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def check(self) -> None:
        """Look whether the place could be used, without a connection.

        Raises:
            PlaceError: its package is not installed, or nobody knows its protocol.
        """
        self._place.check()

    def write(self, kind: str, stem: str, suffix: str, data: bytes) -> Artifact:
        """Keep the data under a unique name, and return only when it is there to stay.

        The name is made of the stem's and the digest's first 16 characters: the same content twice is one file.

        Raises:
            ArtifactError: it cannot be written (full, read-only, out of reach); no half of it is left.
        """
        digest = hashlib.sha256(data).hexdigest()
        name = _plain(f"{stem[:STEM]}-{digest[:STEM]}{suffix}")
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
        place = Folder(str(Path(location).parent)) if is_outside else self._place
        name = Path(location).name if is_outside else _plain(location)
        shown = location if is_outside else f"{self.location}/{location}"
        with self._trying(shown, "read", "Restore it from a copy, or run the trial again."):
            data = place.get(name)
        if (len(data), hashlib.sha256(data).hexdigest()) != (artifact.bytes, artifact.sha256):
            raise ArtifactError(
                f"{shown} has changed since it was written: it has {len(data)} bytes and another SHA-256 than recorded "
                f"({artifact.bytes} bytes). Restore it from a copy, or run the trial again."
            )
        return data

    def known(self, kind: str, name: str) -> Artifact | None:
        """The artifact of that name, of which nobody has kept the digest; None if it is not what its name says.

        Raises:
            ArtifactError: it cannot be read.
        """
        with self._trying(_plain(name), "read", "Check the address and the rights."):
            data = self._place.get(name)
        digest = hashlib.sha256(data).hexdigest()
        is_whole = name.partition("-")[2].startswith(digest[:STEM])
        return Artifact(kind, name, digest, len(data)) if is_whole else None

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine.

        Raises:
            ArtifactError: it cannot be removed.
        """
        with self._trying(_plain(name), "removed", "Check the rights."):
            self._place.remove(name)

    def clear(self, names: Iterable[str]) -> bool:
        """Remove the files of a study that is gone, and the folder if it is empty then; not if another store uses it.

        What lies outside is not the study's, and stays.

        Raises:
            ArtifactError: one cannot be removed, or who uses the place cannot be read.
        """
        if self._others():
            return False
        for name in names:
            if not Path(name).is_absolute():
                self.delete(name)
        with self._trying("a note of the store", "removed", "Check the rights."):
            notes = self._notes()
            for name in notes.names():
                notes.remove(name)
            notes.leave()
        self._place.leave()
        return True

    def move_in(self) -> list[str]:
        """Note that the tenant uses the place from now on; returns the locations of the other stores that do.

        A copy of a store knows the same files as the store that it was copied from, and each goes on by itself.

        Raises:
            ArtifactError: it cannot be noted.
        """
        if self._tenant is not None:
            with self._trying("a note of the store", "written", "Make room or check the rights."):
                note = {"store": self._tenant.location, "place": self._place.identity()}
                self._notes().put(_name_of(self._tenant), json.dumps(note).encode())
        return self._others()

    def discard(self, name: str) -> bool:
        """Delete a file that the trials of a store need no longer; it stays if another store uses the place too.

        Raises:
            ArtifactError: it cannot be removed, or who uses the place cannot be read.
        """
        if self._others():
            return False
        self.delete(name)
        return True

    def _others(self) -> list[str]:
        with self._trying("the list of stores", "read", "Check the address and the rights."):
            notes = self._notes()
            mine = None if self._tenant is None else _name_of(self._tenant)
            found = [
                _noted(notes.get(name)) for name in sorted(notes.names()) if name.endswith(".json") and name != mine
            ]
            here = self._place.identity() if found else ""
        own = None if self._tenant is None else self._tenant.location
        return [store for store, place in found if place in (here, "") and store != own]

    def _notes(self) -> Place:
        return place_at(f"{self._given.rstrip('/')}/{_TENANTS}")

    def names(self) -> list[str]:
        """All files by name, sorted, unfinished ones too (see `basics.PART`); none if the folder is not there yet.

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
                f"In {self.location}, {what} could not be {done}: {self._place.said(error)}. {advice}"
            ) from None


def artifacts_at(recorded: str, default: Path, tenant: Tenant | None = None) -> ArtifactStore:
    """The artifacts of a study: at the place that the store has recorded, or at the default place if that is empty.

    A recorded name is that of a folder beside the default one: the study is older than folders of its own, and has been
    renamed.
    """
    is_name = recorded and "://" not in recorded and not Path(recorded).is_absolute()
    return ArtifactStore(default.parent / recorded if is_name else recorded or default, tenant)


def _name_of(tenant: Tenant) -> str:
    return f"{hashlib.sha256(tenant.identity.encode()).hexdigest()[:16]}.json"


def _noted(data: bytes) -> tuple[str, str]:
    """Location and place in a note of a store."""
    try:
        note = json.loads(data)
        return str(note["store"]), str(note["place"])
    except (ValueError, KeyError, TypeError):
        return "a store that cannot be told", ""


def _plain(name: str) -> str:
    """The name, if it is one.

    Raises:
        ArtifactError: it leads somewhere else.
    """
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ArtifactError(
            f"{name!r} is no name of an artifact: that is the name of a file in its study's folder. "
            "The store's record of it was changed; restore the store from a copy."
        )
    return name
