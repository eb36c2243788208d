"""Whether a folder for transformers could be written of a study's models, before there are any."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import nn

from rank_search.errors import ExportError
from rank_search.export.pretrained import require_pretrained
from rank_search.export.recorded import recorded
from rank_search.export.replacements import require_own_factors, sizes_of_parts
from rank_search.layers import Factorization, Opened, axes_of
from rank_search.study import Problem

_log = logging.getLogger(__name__)


def say_if_no_folder(problem: Problem) -> None:
    """Warn, before a search begins, of what a folder for transformers could not have, if one could be written at all.

    Of each factorization one layer of each kind is looked at, on a device without numbers.
    """
    try:
        require_pretrained(problem.original)
    except ExportError:
        return
    if found := [*_opened(problem.opened), *_forms(problem)]:
        _log.warning(
            "The search will run, but --format transformers cannot write models with %s. Other formats can.",
            "; ".join(found),
        )


def _opened(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        try:
            if isinstance(module, Opened):
                sizes_of_parts(module)
        except ExportError as error:
            yield f"layers in {name} ({type(module).__name__}), as {error}"


def _forms(problem: Problem) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for name, layer in problem.inventory.layers.items():
        for chosen in problem.choices[name]:
            axes = axes_of(problem.plugins[chosen], layer)
            if not axes or (chosen, layer.kind) in seen:
                continue
            seen.add((chosen, layer.kind))
            values = {axis.name: int(axis.low) if axis.integer else axis.low for axis in axes}
            with torch.device("meta"):
                form: Factorization = problem.plugins[chosen](layer, **values)
            try:
                require_own_factors(form)
                recorded(form)
            except ExportError as error:
                yield f"{chosen} for {name} and others of the kind {layer.kind}, as {error}"
