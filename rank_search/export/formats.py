"""The forms a traced model leaves in. Each is written, read back, and compared before it is called done."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import nn

from rank_search.coding import to_safetensors
from rank_search.errors import ExportError
from rank_search.export.graph import to_json
from rank_search.export.loading import GRAPH, TENSORS, read_safetensors
from rank_search.export.onnx_file import read_onnx, widened, write_onnx
from rank_search.export.quiet import quiet, said
from rank_search.export.tracing import Traced

PROGRAM: Final = "model.pt2"

Write = Callable[[Traced, Path], None]
"""Writes a traced model into a folder."""

Reload = Callable[[Path, Mapping[str, Any]], nn.Module]
"""Reads a folder, whose manifest is at hand, back into something that can be called like the model."""


def write_safetensors(traced: Traced, folder: Path) -> None:
    """A JSON graph and its tensors: read back by `rank_search.load(folder)`, without running code of the folder's."""
    graph, tensors = to_json(traced.program, traced.arguments)
    (folder / GRAPH).write_text(json.dumps(graph), encoding="utf-8")
    (folder / TENSORS).write_bytes(to_safetensors(tensors))


def write_pt2(traced: Traced, folder: Path) -> None:
    """A program of torch.export: read back by `torch.export.load`, which needs torch alone.

    PyTorch's own writer ends the process if the disk is full, so it writes into memory.

    Raises:
        ExportError: it cannot be saved.
    """
    made = io.BytesIO()
    try:
        with quiet():
            torch.export.save(traced.program, made)
    except Exception as error:
        raise ExportError(f"The model's program cannot be saved: {said(error)}. Use --format safetensors.") from error
    (folder / PROGRAM).write_bytes(made.getbuffer())


def read_pt2(folder: Path, manifest: Mapping[str, Any]) -> nn.Module:
    """The program's module.

    Raises:
        ExportError: it cannot be read again.
    """
    try:
        with quiet():
            return torch.export.load(folder / PROGRAM).module()
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"A saved program cannot be read again: {said(error)}. Use --format safetensors.") from error


def _as_it_is(model: nn.Module) -> nn.Module:
    return model


@final
@dataclass(frozen=True)
class Format:
    """A form that a model leaves in.

    Attributes:
        write, read: to a folder and back.
        prepared: what is written in the place of the model; the model itself if it can be.
        same_draws: whether what is read back draws torch's random numbers.
    """

    write: Write
    read: Reload
    prepared: Callable[[nn.Module], nn.Module] = _as_it_is
    same_draws: bool = True


FORMATS: Final[dict[str, Format]] = {
    "safetensors": Format(write_safetensors, read_safetensors),
    "pt2": Format(write_pt2, read_pt2),
    "onnx": Format(write_onnx, read_onnx, widened, same_draws=False),
}
