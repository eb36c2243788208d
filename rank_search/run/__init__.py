"""A study from its file to its front: prepare, join, run, confirm; models in memory; workers here and on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.run.allocated import AllocatedModel, allocate_model
    from rank_search.run.compression import Compressed, compress
    from rank_search.run.confirmation import Confirmation, Confirmed, confirm
    from rank_search.run.moment_passes import calibration_batches
    from rank_search.run.preparation import (
        Prepared,
        begin,
        figures_of,
        layer_bases,
        layer_moments,
        layer_priors,
        prepare,
    )
    from rank_search.run.runner import Result, run_study

_HOMES: Final = {
    "AllocatedModel": "allocated",
    "Compressed": "compression",
    "Confirmation": "confirmation",
    "Confirmed": "confirmation",
    "Prepared": "preparation",
    "Result": "runner",
    "allocate_model": "allocated",
    "begin": "preparation",
    "calibration_batches": "moment_passes",
    "compress": "compression",
    "confirm": "confirmation",
    "figures_of": "preparation",
    "layer_bases": "preparation",
    "layer_moments": "preparation",
    "layer_priors": "preparation",
    "prepare": "preparation",
    "run_study": "runner",
}

__all__ = [
    "AllocatedModel",
    "Compressed",
    "Confirmation",
    "Confirmed",
    "Prepared",
    "Result",
    "allocate_model",
    "begin",
    "calibration_batches",
    "compress",
    "confirm",
    "figures_of",
    "layer_bases",
    "layer_moments",
    "layer_priors",
    "prepare",
    "run_study",
]

__getattr__ = lazy_door(__name__, _HOMES)
