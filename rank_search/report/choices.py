"""What each trial chose for each layer, beside what the weights say: one entry a layer, one number a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rank_search.point import Choice
from rank_search.store import PriorRow, StudyRecord, TrialRow


def layers_of(study: StudyRecord, rows: Sequence[TrialRow]) -> list[dict[str, Any]]:
    """For each layer its axes with their priors, the distinct choices, and which of these each trial made.

    `cost` is what the layer costs as it is, if the store knows. `choices` has `{factorization, values, cost}`, and
    `asked`, the values asked for, where the model has settled at others; `picks` a place in it for each trial (−1: the
    layer is not in its point).
    """
    names = dict.fromkeys(layer for row in rows for layer in row.model_point.layers)
    names |= dict.fromkeys(prior.layer for prior in study.priors)
    return [
        {"name": name, "cost": study.layer_costs.get(name), "axes": _axes(study.priors, name), **_picked(name, rows)}
        for name in names
    ]


def _axes(priors: Sequence[PriorRow], layer: str) -> list[dict[str, Any]]:
    return [
        {
            "factorization": prior.factorization,
            "axis": prior.axis,
            "prior": prior.rank,
            "full": prior.full_rank,
            "noise_variance": prior.noise_variance,
            "energy_kept": prior.energy_kept,
            "break_even": prior.break_even,
        }
        for prior in priors
        if prior.layer == layer
    ]


def _picked(layer: str, rows: Sequence[TrialRow]) -> dict[str, Any]:
    known: dict[tuple[Any, ...], int] = {}
    choices: list[dict[str, Any]] = []
    picks: list[int] = []
    for row in rows:
        choice = row.model_point.layers.get(layer)
        if choice is None:
            picks.append(-1)
            continue
        asked = row.point.layers[layer]
        key = (choice.factorization, *choice.values.items(), *asked.values.items())
        if key not in known:
            known[key] = len(choices)
            choices.append(_shown(choice, asked, row.layer_costs.get(layer)))
        picks.append(known[key])
    return {"choices": choices, "picks": picks}


def _shown(choice: Choice, asked: Choice, cost: Mapping[str, float] | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"factorization": choice.factorization, "values": dict(choice.values)}
    if choice != asked:
        shown["asked"] = dict(asked.values)
    return shown if cost is None else {**shown, "cost": dict(cost)}
