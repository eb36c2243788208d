"""A network alone, from the command line: its study file is written, so that all other verbs work as ever."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rank_search.cli.parameters import MadeUp
from rank_search.errors import StudyFileError, TaskError

_FILES: Final = (".py", ".pt2")
_TRAINED: Final = 0  # epochs: with made-up inputs distillation has brought nothing yet


def study_file_of(reference: str, data: MadeUp | None, example: str | None, store: str | None) -> Path:
    """The study file that is meant: the one that is named, or one that is written about a network alone.

    The written one lies beside the store, if that is a file, or else in the current folder. It is named after the
    network's file and factory, and the source.

    Raises:
        StudyFileError: the words do not go together, or another file is in its place.
        TaskError: the network cannot be used.
    """
    if reference.endswith(".toml"):
        if data or example:
            raise StudyFileError(
                f"--data and --example are about a network alone; {reference} is a study file, which says so itself: "
                '[data] source = "none", [task] example = "1x3x32x32".'
            )
        return Path(reference)
    if reference.endswith((".pt", ".pth")):
        raise TaskError(
            f"{reference} is a file that PyTorch unpickles, which may run any code in it; and weights have no network. "
            "Write a factory that makes the network and loads its weights, and give MODEL.py:factory, or save the "
            "network with torch.export.save, and give MODEL.pt2."
        )
    location, factory = _parts(reference)
    if data is None:
        raise StudyFileError(
            f"{reference} is a network alone, and nothing says what to look at instead of data. Add --data synthetic, "
            "gaussian, analytic or none (docs/no-data.md)."
        )
    place = _file_of(store)
    folder = Path.cwd() if place is None else place.parent
    stem = Path(location).stem if location.endswith(_FILES) else location.rpartition(".")[2]
    name = "-".join([stem, *factory, data.value])
    tables = _tables(name, ":".join([_from(location, folder), *factory]), data, example)
    if place is not None:
        tables["study"]["store"] = place.name
    return _written(folder / f"{name}.toml", tables, f"rank-search run {reference} --data {data.value}")


def _parts(reference: str) -> tuple[str, list[str]]:
    """Where the network is, and its factory there; a file of torch.export.save has none.

    Raises:
        StudyFileError: it is neither.
    """
    from rank_search.study import is_program

    if is_program(reference):
        return reference, []
    location, _, factory = reference.rpartition(":")
    if not location or not factory:
        raise StudyFileError(
            f"{reference!r} is neither a study file, STUDY.toml, nor a network alone, MODEL.py:factory or MODEL.pt2."
        )
    return location, [factory]


def _tables(name: str, factory: str, data: MadeUp, example: str | None) -> dict[str, dict[str, Any]]:
    task = {"factory": factory, **({"example": example} if example else {})}
    return {
        "study": {"name": name},
        "task": task,
        "data": {"source": data.value},
        "search": {"objectives": ["", "macs"]},
        "training": {"epochs": _TRAINED},
    }


def _file_of(store: str | None) -> Path | None:
    """That of a store which is one."""
    from rank_search.store import locate

    found = None if store is None else locate(store)
    is_file = found is not None and found.get_backend_name() == "sqlite" and not found.query
    return Path(str(found.database)).absolute() if found is not None and is_file else None


def _from(location: str, folder: Path) -> str:
    """A file as it is called from the study file's folder; a module by its name."""
    if not location.endswith(_FILES):
        return location
    return Path(os.path.relpath(Path(location).absolute(), folder)).as_posix()


def _written(file: Path, tables: dict[str, dict[str, Any]], command: str) -> Path:
    """The file, with the objective that its network has."""
    from rank_search.study import measured_alone

    tables["search"]["objectives"][0] = measured_alone(tables, file.parent)
    text = f"# Written by `{command}`.\n\n" + "\n".join(_as_toml(name, keys) for name, keys in tables.items())
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise StudyFileError(
            f"{file} is there already, and says something else than this command would. Run it by its own name, "
            f"rank-search run {file.name}, or move it away."
        )
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StudyFileError(f"The study file {file} cannot be written: {error.strerror}.") from error
    return file


def _as_toml(name: str, keys: Mapping[str, Any]) -> str:
    """A table of texts, numbers and lists of texts, which TOML writes as JSON does."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return "\n".join([f"[{name}]", *lines, ""])
