"""Step 2 of the data path: the factory named in the study file makes the task, or a program in its place is read."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import tensors_of
from rank_search.programs import example_of_program, read_program, takes_any_batch
from rank_search.study.code import is_program, task_code
from rank_search.study.file import Study
from rank_search.study.task_folder import searched_first
from rank_search.tasks import AgreementTask, Task


def load_task(study: Study) -> Task:
    """Import the factory and call it with the study file's options.

    Raises:
        TaskError: it does not import, is not there, raises, or returns something else than a `Task`, or, with
            `[data] source`, than a network or a network and an example; or a program in its place cannot be read.
    """
    if is_program(study.task.factory):
        return _program_alone(study)
    task = _made(study)
    task_code(study)  # which refuses modules of another folder
    if isinstance(task, Task):
        return task
    if study.data.source != "task" and (found := _network_alone(task, study)) is not None:
        return found
    raise TaskError(
        f"task.factory {study.task.factory!r} returned {type(task).__name__}; it must return a rank_search.Task, such "
        "as rank_search.Supervised(…). A network, or a network and an example, is enough where [data] source says what "
        "is looked at instead of data."
    )


def _made(study: Study) -> object:
    """What the factory gives."""
    with _own_folder_first(study):
        factory = _factory(study.task.factory, study.folder)
        try:
            return factory(**study.task.options)
        except Exception as error:
            raise TaskError(
                f"task.factory {study.task.factory!r} raised {type(error).__name__}: {error}. "
                "Correct the factory, or its arguments in [task.options]."
            ) from error


def _own_folder_first(study: Study) -> AbstractContextManager[None]:
    """As Python runs a script: the folder of the task's file is searched first for what that imports itself."""
    path = (study.folder / study.task.factory.rpartition(":")[0]).resolve()
    return searched_first(path.parent) if path.suffix == ".py" and path.is_file() else nullcontext()


def _network_alone(made: object, study: Study) -> Task | None:
    """A task without any data, of a network or of a network and an example."""
    network, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, nn.Module):
        return None
    if example is None or study.task.example:
        example = example_of(study.task.example)
    return AgreementTask(network, (), (), one_example=example)


_OF_BATCHES: Final = ("synthetic", "gaussian")


def _program_alone(study: Study) -> Task:
    """A task without any data, of the network in a file of `torch.export.save`."""
    reference, source = study.task.factory, study.data.source
    if source == "task" or study.task.options:
        raise TaskError(
            f"task.factory {reference!r} is an exported program: a network alone, with no data and no [task.options]. "
            'Say what is looked at instead of data, [data] source = "none", or write a factory.'
        )
    network = read_program(study.folder / reference)
    found = example_of_program(network)
    fixed = None if takes_any_batch(network) else len(tensors_of(found)[0])
    if fixed is not None and (fixed > 1 or source in _OF_BATCHES):
        raise TaskError(
            f"task.factory {reference!r} was exported for batches of {fixed} alone; [data] source = {source!r} takes "
            f"{'batches of any size' if source in _OF_BATCHES else 'examples one by one'}. Export it for any batch: "
            "torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))."
        )
    example = example_of(study.task.example) if study.task.example else found
    return AgreementTask(network, (), (), one_example=example)


def example_of(text: str) -> Tensor:
    """One example of a shape such as `1x3x32x32` or `1x128,int64`: numbers from N(0, 1), or zeros where whole.

    Raises:
        TaskError: it is no such shape.
    """
    shape, _, name = text.partition(",")
    sizes = shape.strip().lower().split("x")
    dtype = getattr(torch, name.strip() or "float32", None)
    if not all(each.isdigit() and int(each) for each in sizes) or not isinstance(dtype, torch.dtype):
        found = f"task.example is {text!r}" if text else "The factory returned a network without an example"
        raise TaskError(
            f"{found}; an example is a shape, one example as a batch of 1, with its dtype if that is not float32: "
            '"1x3x32x32", or "1x128,int64" for token ids. Give it (--example, [task] example), or return (network, '
            "example)."
        )
    size = [int(each) for each in sizes]
    if not dtype.is_floating_point:
        return torch.zeros(size, dtype=dtype)
    return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)


def _factory(reference: str, folder: Path) -> Callable[..., Any]:
    location, separator, name = reference.rpartition(":")
    if not separator or not location or not name:
        raise TaskError(
            f"task.factory {reference!r} is neither 'file.py:function' nor 'package.module:function', nor a file of "
            "torch.export.save, 'model.pt2'."
        )
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
    if not path.is_file():
        raise TaskError(f"task.factory: there is no file {path}.")
    name = f"rank_search_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
