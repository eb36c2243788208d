"""What to type for a trial: commands of the shell, cut where the number of the trial goes."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rank_search.store import locate

_MARK: Final = "\0"  # in no path, no name and no URL, so no quoting comes near it


@dataclass(frozen=True)
class Command:
    """A command about one trial: what it does, and its text, to be joined by the number of the trial."""

    does: str
    parts: tuple[str, ...]

    def of(self, number: int) -> str:
        """What to type for that trial.

        >>> Command("shows it", ("rank-search show s.sqlite digits ", "")).of(7)
        'rank-search show s.sqlite digits 7'
        """
        return str(number).join(self.parts)


def commands(store: str, name: str) -> list[Command]:
    """The commands for any trial of the study, quoted for a POSIX shell.

    An SQLite file is named by its full path, so that they work in every folder. A URL is as it was given, but if it
    holds a password, or anything else beside user, host and database, the shell's RANK_SEARCH_STORE stands for it.
    """
    where, folder = _store(store), _folder(name)
    study = shlex.quote(name)
    dash = "-- " if name.startswith("-") else ""  # never read as an option
    return [
        _cut("writes the model into a folder", f"rank-search export -o {folder}-{_MARK} {dash}{where} {study} {_MARK}"),
        _cut(
            "writes it as ONNX", f"rank-search export --format onnx -o {folder}-{_MARK} {dash}{where} {study} {_MARK}"
        ),
        _cut("writes it into one file", f"rank-search pack -o {folder}-{_MARK}.rsz {dash}{where} {study} {_MARK}"),
        _cut("trains it for longer, as a study beside", f"rank-search confirm {dash}{where} {study} {_MARK}"),
        _cut("shows it", f"rank-search show {dash}{where} {study} {_MARK}"),
    ]


def _store(store: str) -> str:
    url = locate(store)
    if url.get_backend_name() == "sqlite":
        return shlex.quote(str(Path(url.database or "").absolute()))
    secret = url.password is not None or url.query
    return '"$RANK_SEARCH_STORE"' if secret else shlex.quote(store)


def _folder(name: str) -> str:
    """A name for the folder to make that needs no quotes."""
    return re.sub(r"[^A-Za-z0-9_.@]+", "-", name).strip("-.") or "study"


def _cut(does: str, text: str) -> Command:
    return Command(does, tuple(text.split(_MARK)))
