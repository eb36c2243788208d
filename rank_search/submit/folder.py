"""What is shipped: the folder of the study file, without what does not belong to the study."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from rank_search.errors import LaunchError
from rank_search.study import Study, is_program

LEFT_OUT: Final = (
    "*.sqlite*",
    "*.artifacts",
    "runs",
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "*.py[co]",
    "*.egg-info",
    ".cache",
    ".*_cache",
    ".hypothesis",
    ".ipynb_checkpoints",
    ".env",
    ".pgpass",
)
"""What is never shipped, as globs on names: stores and files of trials, caches, environments, secrets."""

LARGEST: Final = 500 * 2**20  # bytes; Ray takes packages of less than 512 MiB
IGNORE_FILE: Final = ".rayignore"


def files_to_ship(study: Study, file: str) -> list[Path]:
    """Everything in the study's folder but what `LEFT_OUT`, the ignore file or `[study] cache` name, in order.

    Raises:
        LaunchError: the study's own code or the study `file` is not among it, or it is too much.
    """
    try:
        files = _wanted_files(study)
        _check_code(study, file, files)
        _check_size(study.folder, files)
    except OSError as error:
        raise LaunchError(f"The study's folder cannot be read, and so not be sent to the cluster: {error}.") from error
    return files


def _wanted_files(study: Study) -> list[Path]:
    folder = study.folder
    globs = [*LEFT_OUT, *_ignored(folder / IGNORE_FILE)]
    cache = (folder / study.study.cache).resolve() if study.study.cache else None

    def wanted(path: Path) -> bool:
        inside = path.relative_to(folder).as_posix()
        hit = any(fnmatchcase(path.name, glob) or fnmatchcase(inside, glob) for glob in globs)
        return not hit and path.resolve() != cache

    return sorted(_walk(folder, wanted))


def _walk(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    for at, folders, names in os.walk(folder, followlinks=True):
        here = Path(at)
        folders[:] = [name for name in folders if wanted(here / name) and not _leads_back(here / name)]
        yield from (here / name for name in names if wanted(here / name) and (here / name).is_file())


def _leads_back(folder: Path) -> bool:
    """Whether a link leads to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _ignored(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    globs = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]
    if kept := [glob for glob in globs if glob.startswith("!")]:
        raise LaunchError(f"{file} cannot keep files: {kept[0]!r}. Each of its lines is a glob of files to leave out.")
    return globs


def _check_code(study: Study, file: str, files: Iterable[Path]) -> None:
    """The study file goes along, and the files of code that it names."""
    shipped = {path.resolve() for path in files}
    named = {each: each.rpartition(":")[0] for each in (study.task.factory, *study.layers.plugin_names())}
    code = {reference: name for reference, name in named.items() if name.endswith(".py")}
    if is_program(study.task.factory):
        code[study.task.factory] = study.task.factory
    for reference, name in {file: file, **code}.items():
        if (study.folder / name).resolve() not in shipped:
            raise LaunchError(
                f"{reference!r} is not among the files in {study.folder} that are sent to the cluster. Put it "
                f"there, take it out of {IGNORE_FILE}, or install it on every node as a "
                "package and name it package.module:function."
            )


def _check_size(folder: Path, files: Iterable[Path]) -> None:
    sizes = {path: path.stat().st_size for path in files}
    if sum(sizes.values()) < LARGEST:
        return
    largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
    shown = "".join(f"\n  {sizes[path] / 2**20:8,.0f} MiB  {path.relative_to(folder)}" for path in largest)
    raise LaunchError(
        f"{folder} has {sum(sizes.values()) / 2**20:,.0f} MiB in {len(sizes)} files; less than "
        f"{LARGEST >> 20} MiB can be sent to a cluster. The largest:{shown}\n"
        f"Name what the study does not need in {folder / IGNORE_FILE}, one glob a line. Put large data on every node, "
        "or on storage that all of them share, and let [task.options] say where."
    )


def pack(folder: Path, files: Iterable[Path], package: Path) -> Path:
    """A zip file that depends on names and contents alone, so that Ray knows a folder it has had before.

    Raises:
        LaunchError: a file cannot be read.
    """
    try:
        with ZipFile(package, "w", ZIP_DEFLATED) as archive:
            for path in files:
                entry = ZipInfo(path.relative_to(folder).as_posix())
                entry.external_attr = (path.stat().st_mode & 0o777) << 16
                archive.writestr(entry, path.read_bytes(), ZIP_DEFLATED)
    except (OSError, UnicodeError) as error:
        raise LaunchError(f"A file in {folder} cannot be read, and so not be sent to the cluster: {error}.") from error
    return package
