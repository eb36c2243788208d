"""The three forms a model leaves in. Each is written, read back, and compared before it is called done."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rank_search.errors import ExportError, to_install
from rank_search.export.graph import to_json
from rank_search.export.loaded import from_json
from rank_search.export.needed import only_needed
from rank_search.layers import Example, layer_by_layer

MANIFEST: Final = "manifest.json"
GRAPH: Final = "graph.json"
TENSORS: Final = "model.safetensors"
PROGRAM: Final = "model.pt2"
ONNX: Final = "model.onnx"
CODED: Final = "model.coded"

Reload = Callable[[Path], nn.Module]
"""Reads a folder back into something that can be called like the model."""


def trace(model: nn.Module, example: Example) -> tuple[ExportedProgram, bool]:
    """The model as a graph, for batches of any size if the model allows it (then the second value is True).

    Raises:
        ExportError: torch.export cannot trace it.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    pairs = tuple(torch.cat([each, each]) if each.dim() else each for each in inputs)
    batch = Dim("batch", min=1)
    shapes = tuple({0: batch} if each.dim() else None for each in inputs)
    with _quiet(), layer_by_layer():
        try:
            return only_needed(torch.export.export(model, pairs, dynamic_shapes=shapes)), True
        except Exception:  # noqa: BLE001 - whatever the reason, a fixed batch is tried next
            return _trace_fixed(model, inputs), False


def _trace_fixed(model: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    try:
        return only_needed(torch.export.export(model, inputs))
    except Exception as error:
        raise ExportError(
            f"torch.export must be able to trace the model; it raised {type(error).__name__}: {error}. "
            "Data-dependent control flow in forward is the usual reason."
        ) from error


def write_safetensors(model: nn.Module, example: Example, folder: Path) -> bool:
    """A JSON graph and its tensors: read back by `rank_search.load(folder)`, without running code of the folder's."""
    program, any_batch = trace(model, example)
    graph, tensors = to_json(program)
    (folder / GRAPH).write_text(json.dumps(graph), encoding="utf-8")
    alone = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(alone, folder / TENSORS)
    return any_batch


def read_safetensors(folder: Path) -> nn.Module:
    """The module of a graph and its tensors.

    Raises:
        ExportError: a file is missing, damaged, or is not what an export writes.
    """
    try:
        graph = json.loads((folder / GRAPH).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ExportError(
            f"An exported folder holds {GRAPH} and {TENSORS}; {folder} cannot be read: {error}. "
            "Export the model again with --format safetensors."
        ) from error
    return from_json(graph, tensors)


def write_pt2(model: nn.Module, example: Example, folder: Path) -> bool:
    """A program of torch.export: read back by `torch.export.load`, which needs torch alone."""
    program, any_batch = trace(model, example)
    with _quiet():
        torch.export.save(program, folder / PROGRAM)
    return any_batch


def read_pt2(folder: Path) -> nn.Module:
    """The program's module."""
    with _quiet():
        return torch.export.load(folder / PROGRAM).module()


def write_onnx(model: nn.Module, example: Example, folder: Path) -> bool:
    """An ONNX model.

    Raises:
        ExportError: the packages for it are not installed, or an operator has no ONNX form.
    """
    program, any_batch = trace(model, example)
    try:
        with _quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
            if exported is None:
                raise ExportError("torch.onnx gave no model.")
            exported.save(folder / ONNX, external_data=False)
    except ImportError as error:
        raise ExportError(f"ONNX needs more packages ({error}): {to_install('onnx')}.") from error
    except Exception as error:
        raise ExportError(f"The model has no ONNX form: {type(error).__name__}: {error}. Use --format pt2.") from error
    return any_batch


class OnnxModule(nn.Module):
    """An ONNX model run by onnxruntime, called like the module it came from (one output)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_inputs()]

    def forward(self, *inputs: Tensor) -> Any:
        feed = {name: each.detach().numpy() for name, each in zip(self._names, inputs, strict=True)}
        outputs = [torch.from_numpy(each) for each in self._session.run(None, feed)]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def read_onnx(folder: Path) -> nn.Module:
    """The ONNX model, run by onnxruntime.

    Raises:
        ExportError: onnxruntime is not installed.
    """
    try:
        return OnnxModule(folder / ONNX)
    except ImportError as error:
        raise ExportError(f"ONNX needs more packages ({error}): {to_install('onnx')}.") from error


Write = Callable[[nn.Module, Example, Path], bool]
"""Writes a model into a folder, and says whether what it wrote takes batches of any size."""

WRITERS: Final[Mapping[str, Write]] = {
    "safetensors": write_safetensors,
    "pt2": write_pt2,
    "onnx": write_onnx,
}
READERS: Final[Mapping[str, Reload]] = {"safetensors": read_safetensors, "pt2": read_pt2, "onnx": read_onnx}


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own future; a user can do nothing about it."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
