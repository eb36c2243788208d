"""Files of torch.export.save for tests: written, and rewritten part by part."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

ANY_BATCH = ({0: Dim("batch")},)


class Normed(nn.Module):
    """A block with batch norms, a shortcut, an activation in place and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, stride=2)])
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.blocks[1](x + self.blocks[0](x)))
        found: Tensor = self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return found


def normed() -> Normed:
    """Its statistics are those of some data."""
    torch.manual_seed(0)
    network = Normed().train()
    for _ in range(3):
        network(2 * torch.randn(16, 1, 6, 6) + 1)
    return network.eval()


class Tokens(nn.Module):
    """A language model of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(20, 12), nn.Linear(12, 12), nn.Linear(12, 20)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.table(input_ids)
        found: Tensor = self.head(x + torch.relu(self.body(x)))
        return found


def exported(network: nn.Module, *inputs: Tensor, shapes: Any = None, named: Any = None) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(network, inputs, named, dynamic_shapes=shapes)


def saved(program: ExportedProgram, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
    return path


def decomposed(program: ExportedProgram) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions()


def parts_of(path: Path) -> dict[str, bytes]:
    """What is in a file, by the names below its folder."""
    with ZipFile(path) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def written(path: Path, parts: Mapping[str, bytes], compression: int = ZIP_STORED) -> Path:
    with ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(f"model/{name}", content)
    return path


def edited(parts: Mapping[str, bytes], name: str, edit: Callable[[Any], Any]) -> dict[str, bytes]:
    """The parts with the JSON in one of them changed in place."""
    content = json.loads(parts[name])
    edit(content)
    return {**parts, name: json.dumps(content).encode()}


class _Runs:
    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.where),)


def pickle_that_makes(folder: Path) -> bytes:
    """Whoever unpickles it makes a folder."""
    return pickle.dumps(_Runs(folder))


def saved_that_makes(folder: Path) -> bytes:
    """Whoever loads it with torch.load makes a folder."""
    buffer = io.BytesIO()
    torch.save(_Runs(folder), buffer)
    return buffer.getvalue()
