"""A study from its file to its front: prepare, join, run, confirm; models in memory; workers here and on a cluster."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rank_search.run.compression import Compressed, compress
    from rank_search.run.confirmation import Confirmation, Confirmed, RunContext, confirm
    from rank_search.run.preparation import Prepared, cache_folder, layer_moments, layer_priors, prepare, weight_of
    from rank_search.run.pretrain import with_pretrained_model
    from rank_search.run.runner import Result, run_study

_HOMES: Final = {
    "Compressed": "compression",
    "Confirmation": "confirmation",
    "Confirmed": "confirmation",
    "Prepared": "preparation",
    "Result": "runner",
    "RunContext": "confirmation",
    "cache_folder": "preparation",
    "compress": "compression",
    "confirm": "confirmation",
    "layer_moments": "preparation",
    "layer_priors": "preparation",
    "prepare": "preparation",
    "run_study": "runner",
    "weight_of": "preparation",
    "with_pretrained_model": "pretrain",
}

__all__ = [
    "Compressed",
    "Confirmation",
    "Confirmed",
    "Prepared",
    "Result",
    "RunContext",
    "cache_folder",
    "compress",
    "confirm",
    "layer_moments",
    "layer_priors",
    "prepare",
    "run_study",
    "weight_of",
    "with_pretrained_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
