"""What a task's code is: its file, and what that imports from its own folder."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rank_search.errors import TaskError
from rank_search.study.file import Study
from rank_search.study.task_folder import home_of, is_installed, is_of_a_task

PROGRAM: Final = ".pt2"


def is_program(reference: str) -> bool:
    """Whether a factory is no code, but the file of an exported program."""
    return reference.endswith(PROGRAM)


def task_code(study: Study) -> dict[str, str]:
    """SHA-256 of each file of the task's code, by its path below the folder that imports start from.

    Followed are the imports that the files spell out, as far as they lead to files in that folder. An installed
    package has a version instead, also where a file in the folder has its name but is not what was imported; and a task
    that was made in Python has no file. An exported program is its own file.

    Raises:
        TaskError: a module that the files import is there, but was imported from elsewhere, and is not installed.
    """
    if is_program(study.task.factory):
        path = study.folder / study.task.factory
        return {path.name: _file_digest(path)} if path.is_file() else {}
    root, first = _start(study)
    found: dict[Path, bytes] = {}
    pending = [] if first is None else [first]
    while pending:
        path = pending.pop()
        if path not in found and (content := _content(path)) is not None:
            found[path] = content
            pending += [each for each in _imported(content, path, root) if _is_own(each, root, study)]
    return {path.relative_to(root).as_posix(): _digest(content) for path, content in sorted(found.items())}


def _is_own(path: Path, root: Path, study: Study) -> bool:
    """Whether a file in the folder is what Python imports under its name, rather than something installed."""
    if not path.is_relative_to(root):
        return False
    name = path.relative_to(root).parts[0].removesuffix(".py")
    module = sys.modules.get(name)
    if module is None:
        return str(root) not in sys.path or _is_found(name, root)
    if home_of(module) == root or is_of_a_task(module):  # of one that was loaded after this one, which had its own
        return True
    if is_installed(module):
        return False
    raise TaskError(
        f"task.factory {study.task.factory!r} imports {name!r}, which this process has already imported from "
        f"{home_of(module)}; {root} has another one. Rename it, or load the task in a process of its own."
    )


def _is_found(name: str, root: Path) -> bool:
    """Whether a module that is not imported yet would be the folder's; one that has no file is its folder there."""
    origin = _origin(name)
    return name not in sys.builtin_module_names if origin is None else _home(origin) == root


def _start(study: Study) -> tuple[Path, Path | None]:
    """The folder that imports start from, and the task's file in it, if it has one."""
    location = study.task.factory.rpartition(":")[0]
    if location.endswith(".py"):
        path = (study.folder / location).resolve()
        return path.parent, path
    origin = _origin(location)
    if origin is None or {"site-packages", "dist-packages"} & set(origin.parts):
        return Path(), None
    return _home(origin, location.count(".")), origin


def _home(origin: Path, depth: int = 0) -> Path:
    """The folder in which a module was found, so many packages deep."""
    return origin.parents[depth + (origin.name == "__init__.py")]


def _origin(module: str) -> Path | None:
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    is_file = spec is not None and spec.has_location and spec.origin is not None
    return Path(str(spec.origin)).resolve() if is_file and spec is not None else None


def _imported(content: bytes, path: Path, root: Path) -> Iterator[Path]:
    """The files below the root that a file imports."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = path.parents[min(node.level, len(path.parents)) - 1] if node.level else root
            module = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files(above, [*module, alias.name])


def _files(folder: Path, names: list[str]) -> Iterator[Path]:
    """The packages on the way, and the module at its end, of which a last name may only be a part."""
    for name in names:
        yield from (each for each in (folder / f"{name}.py", folder / name / "__init__.py") if each.is_file())
        folder = folder / name


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
