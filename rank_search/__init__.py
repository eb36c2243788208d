"""rank-search: which low-rank factorization, and which rank, for every layer of a trained network.

    import rank_search as rs

    table = rs.options(model, batches, example=x)  # what each layer may become: cost and error
    choice = rs.allocate(table, macs=0.5)  # the least error at half the MACs
    small = rs.factorize(model, choice, table, batches)
    rs.layers(small, x)

    study = rs.load_study("studies/digits.toml")
    result = rs.run_study(study)

Names are loaded when they are first used, so that asking a store imports neither torch nor optuna. `options` and
`layers` are packages that can be called (see `rank_search.basics.callable_room`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rank_search.coding import decode
    from rank_search.continuous import continuous_ranks, learn_importances, mixture_ranks
    from rank_search.errors import RankSearchError
    from rank_search.export import PackedModel, build_model, export_trial, load, pack_model, pack_trial, unpack_file
    from rank_search.layers import Axis, Bases, Factorization, Layer, ModelLayer, ModelLayers, layers
    from rank_search.options import Allocation, Option, OptionTable, allocate, factorize, options
    from rank_search.point import Bound, Choice, Objective, Outcome, Point, State
    from rank_search.programs import read_program
    from rank_search.representations import Representation
    from rank_search.run import Compressed, Confirmation, Confirmed, Result, compress, confirm, run_study
    from rank_search.store import Front, Store, TrialRow
    from rank_search.study import Study, load_study, without_data
    from rank_search.tasks import AgreementTask, LanguageModel, Supervised, Task

_PACKAGES: Final = ("layers", "options", "representations")
"""Shown whole (two of them are functions, too): importing one puts it in here under its name."""

_HOMES: Final = {
    "rank_search.coding": ("decode",),
    "rank_search.continuous": ("continuous_ranks", "learn_importances", "mixture_ranks"),
    "rank_search.run.compression": ("Compressed", "compress"),
    "rank_search.run.confirmation": ("Confirmation", "Confirmed", "confirm"),
    "rank_search.errors": ("RankSearchError",),
    "rank_search.export": (
        "PackedModel",
        "build_model",
        "export_trial",
        "load",
        "pack_model",
        "pack_trial",
        "unpack_file",
    ),
    "rank_search.store": ("Front", "Store", "TrialRow"),
    "rank_search.layers": ("Axis", "Bases", "Factorization", "Layer", "ModelLayer", "ModelLayers"),
    "rank_search.options": ("Allocation", "Option", "OptionTable", "allocate", "factorize"),
    "rank_search.point": ("Bound", "Choice", "Objective", "Outcome", "Point", "State"),
    "rank_search.programs": ("read_program",),
    "rank_search.representations": ("Representation",),
    "rank_search.run.runner": ("Result", "run_study"),
    "rank_search.study": ("Study", "load_study", "without_data"),
    "rank_search.tasks": ("AgreementTask", "LanguageModel", "Supervised", "Task"),
}

__all__ = [
    "AgreementTask",
    "Allocation",
    "Axis",
    "Bases",
    "Bound",
    "Choice",
    "Compressed",
    "Confirmation",
    "Confirmed",
    "Factorization",
    "Front",
    "LanguageModel",
    "Layer",
    "ModelLayer",
    "ModelLayers",
    "Objective",
    "Option",
    "OptionTable",
    "Outcome",
    "PackedModel",
    "Point",
    "RankSearchError",
    "Representation",
    "Result",
    "State",
    "Store",
    "Study",
    "Supervised",
    "Task",
    "TrialRow",
    "allocate",
    "build_model",
    "compress",
    "confirm",
    "continuous_ranks",
    "decode",
    "export_trial",
    "factorize",
    "layers",
    "learn_importances",
    "load",
    "load_study",
    "mixture_ranks",
    "options",
    "pack_model",
    "pack_trial",
    "read_program",
    "representations",
    "run_study",
    "unpack_file",
    "without_data",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"rank_search.{name}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'rank_search' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
