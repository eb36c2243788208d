"""What other tables of a study file may not ask for where `[data]` leaves no labels, or no inputs."""

from __future__ import annotations

from rank_search.priors import PriorSettings
from rank_search.search import SearchSettings
from rank_search.study.data_settings import RUN, DataSettings
from rank_search.tasks import MEASURED_HERE
from rank_search.training import TrainingSettings


def broken_rule(
    data: DataSettings, method: str, priors: PriorSettings, search: SearchSettings, training: TrainingSettings
) -> str:
    """The first rule that is broken, in words; empty if none is."""
    if data.has_labels:
        return ""
    where = f'source = "{data.source}"' if data.source != "task" else "labels = false"
    known = {*data.measured, *MEASURED_HERE}
    if unknown := [name for name in search.asked if name not in known]:
        return (
            f"search: {unknown[0]!r} is not measured with [data] {where}; there are {', '.join(sorted(known))}. For a "
            f'front of agreement and cost set objectives = ["{data.measured[0]}", "macs"]'
        )
    if method == "overparameterized":
        return f'study.method: "overparameterized" trains a network on labels, and [data] {where} leaves none'
    if priors.metric == "loss" and priors.targets == "labels":
        return (
            f'priors.targets: "labels" with metric = "loss" takes gradients with labels, and [data] {where} leaves '
            'none. Set targets = "sampled"'
        )
    return "" if data.source in ("task", *RUN) else _needs_inputs(where, priors, training)


def _needs_inputs(where: str, priors: PriorSettings, training: TrainingSettings) -> str:
    asked = {
        "training.epochs": training.epochs > 0,
        "priors.cuts": priors.cuts > 0,
        "priors.importances": priors.importances not in ("auto", 0),
        "priors.sequential": priors.sequential,
        "priors.metric": priors.metric == "loss",
    }
    needing = [key for key, is_asked in asked.items() if is_asked]
    if not needing:
        return ""
    return (
        f"{needing[0]} needs inputs to run the network on, and [data] {where} has none. "
        + ("Set epochs = 0" if needing[0] == "training.epochs" else "Leave it out")
        + ', or take source = "synthetic" or "gaussian"'
    )
