"""A model becomes a folder: traced, written, read back, compared; there whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from torch import nn

from rank_search.basics import nearest, publish
from rank_search.errors import ExportError
from rank_search.export.arguments import Arguments, completed
from rank_search.export.asked import places_asked
from rank_search.export.compared import Beside, wide
from rank_search.export.formats import FORMATS, Format
from rank_search.export.loading import CODED, MANIFEST, files_in
from rank_search.export.pretrained import PRETRAINED, write_pretrained
from rank_search.export.tracing import Place, trace
from rank_search.export.whole import check_free, made_whole
from rank_search.layers import Call, Example, copied, fuse, with_tensors
from rank_search.programs import Sizes
from rank_search.tasks import Seen, Task


@final
@dataclass(frozen=True)
class Deployable:
    """A model to be written, and what is known of it.

    Attributes:
        task: has the example that it is traced with, and the data that it is compared on.
        seen: what the selection data gave its forward, whose dimensions may vary.
        about: what the manifest says of where it comes from.
        coded: the bytes that decode to its state, if it was coded.
    """

    model: nn.Module
    task: Task
    seen: Seen
    about: Mapping[str, Any]
    coded: bytes | None = None

    @property
    def example(self) -> Example:
        """What the model is traced with: the task's example, called as the task calls the model."""
        return completed(self.model, self.task.example(), self.seen)


Writer = Callable[[nn.Module, nn.Module, Example, set[Place], Path], Beside]
"""Writes into a folder what stands for a model (the second may be it, fused), and reads it back to be compared."""


def form_of(folder: Path, format: str) -> Writer:
    """What writes the form of a folder that is to be made.

    Raises:
        ExportError: something of that name is there, or there is no such format.
    """
    check_free(folder, "an export makes a new folder")
    if format == PRETRAINED:
        return write_pretrained
    if format not in FORMATS:
        raise ExportError(f"There is no format {format!r}{nearest(format, (*FORMATS, PRETRAINED))}")
    return partial(_write_graph, FORMATS[format])


def write_model(
    source: Deployable, folder: Path, format: str, *, fused: bool = False, dynamic: Iterable[str] | None = None
) -> dict[str, Any]:
    """Write a model into a new folder, and return its manifest: what was written gives the model's outputs.

    Args:
        fused, dynamic: as in `export_trial`.

    Raises:
        ExportError: the folder exists already, the model cannot be fused or traced, or gives other outputs once it is
            written; nothing is left then.
    """
    write, model, example = form_of(folder, format), source.model, source.example
    plain = _fused(model, example) if fused else model
    asked = places_asked(dynamic, model, example, source.seen)
    with made_whole(folder) as temporary:
        if source.coded is not None:
            (temporary / CODED).write_bytes(source.coded)
        beside = write(model, plain, example, asked, temporary)
        beside.same_draws |= not source.seen.draws
        beside.check(example, source.task)
        manifest = manifest_of(source, format, beside.sizes)
        manifest |= {"fused": fused, "widened": beside.wide is not None, "files": files_in(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        publish(temporary, folder)
    return manifest


def _write_graph(
    form: Format, model: nn.Module, plain: nn.Module, example: Example, asked: set[Place], folder: Path
) -> Beside:
    written = form.prepared(plain)
    traced = trace(copied(written), _like(written, plain, example), asked)
    form.write(traced, folder)
    return Beside.of(
        model,
        form.read(folder, {"sizes": traced.sizes.to_json()}),
        traced.sizes,
        same_draws=form.same_draws,
        wide=None if written is plain else written,
    )


def manifest_of(source: Deployable, format: str, sizes: Sizes) -> dict[str, Any]:
    """What is known of a model."""
    return {
        "rank_search": version("rank-search"),
        "format": format,
        **source.about,
        "draws": source.seen.draws,
        **about_inputs(Arguments.of(source.model, source.example), sizes),
    }


def about_inputs(arguments: Arguments, sizes: Sizes) -> dict[str, Any]:
    """The inputs of a model, and the sizes that it takes."""
    inputs = [list(each.shape) for each in arguments.tensors]
    return {"any_batch": sizes.any_batch, "inputs": inputs, "sizes": sizes.to_json()}


def _like(written: nn.Module, model: nn.Module, example: Example) -> Example:
    """The example as what is written takes it."""
    return example if written is model else Call.of(with_tensors(example, wide))


def _fused(model: nn.Module, example: Example) -> nn.Module:
    found = fuse(model, example)
    if found is None:
        raise ExportError(
            "This model cannot be fused: torch.fx cannot trace it, or it gives other outputs afterwards. "
            "Export it without --fuse."
        )
    return found
