"""What a task's code is: its file, and what that imports from its own folder."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from rank_search.study.factory import is_program
from rank_search.study.file import Study


def task_code(study: Study) -> dict[str, str]:
    """SHA-256 of each file of the task's code, by its path below the folder that imports start from.

    Followed are the imports that the files spell out, as far as they lead to files in that folder. An installed
    package has a version instead, and a task that was made in Python has no file. An exported program is its own file.
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
            pending += [each for each in _imported(content, path, root) if each.is_relative_to(root)]
    return {path.relative_to(root).as_posix(): _digest(content) for path, content in sorted(found.items())}


def _start(study: Study) -> tuple[Path, Path | None]:
    """The folder that imports start from, and the task's file in it, if it has one."""
    location = study.task.factory.rpartition(":")[0]
    if location.endswith(".py"):
        path = (study.folder / location).resolve()
        return path.parent, path
    origin = _origin(location)
    if origin is None or {"site-packages", "dist-packages"} & set(origin.parts):
        return Path(), None
    depth = location.count(".") + (origin.name == "__init__.py")
    return origin.parents[depth], origin


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
