"""Step 2 of the data path: the factory named in the study file makes the task."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from rank_search.errors import TaskError
from rank_search.study.file import Study
from rank_search.tasks import Task


def load_task(study: Study) -> Task:
    """Import the factory and call it with the study file's options.

    Raises:
        TaskError: it does not import, is not there, raises, or returns something else than a `Task`.
    """
    factory = _factory(study.task.factory, study.folder)
    try:
        task = factory(**study.task.options)
    except Exception as error:
        raise TaskError(
            f"task.factory {study.task.factory!r} raised {type(error).__name__}: {error}. "
            "Correct the factory, or its arguments in [task.options]."
        ) from error
    if not isinstance(task, Task):
        raise TaskError(
            f"task.factory {study.task.factory!r} returned {type(task).__name__}; it must return a rank_search.Task, "
            "such as rank_search.Supervised(…)."
        )
    return task


def _factory(reference: str, folder: Path) -> Callable[..., Any]:
    location, separator, name = reference.rpartition(":")
    if not separator or not location or not name:
        raise TaskError(f"task.factory {reference!r} is neither 'file.py:function' nor 'package.module:function'.")
    module = _module(location, folder)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise TaskError(f"task.factory {reference!r}: {location} has no function {name!r}.")
    return factory  # type: ignore[no-any-return]


def _module(location: str, folder: Path) -> ModuleType:
    try:
        return (
            _import_file((folder / location).resolve())
            if location.endswith(".py")
            else importlib.import_module(location)
        )
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(
            f"task.factory: {location!r} does not import: {type(error).__name__}: {error}. "
            "Correct it, or install what it needs."
        ) from error


def _import_file(path: Path) -> ModuleType:
    """Import a file as Python runs a script: its folder is searched for what it imports itself."""
    if not path.is_file():
        raise TaskError(f"task.factory: there is no file {path}.")
    name = f"rank_search_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
