"""Studies and trials as the verbs that ask a store print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rank_search.cli.output import OutputFormat, Row, print_rows
from rank_search.point import Choice

if TYPE_CHECKING:
    from rank_search.store import StudyRecord, StudySummary, TrialRow

FEWER_MACS: Final = 1.3
FASTER: Final = 1.05
"""From which ratio to the dense model on a trial is said to have fewer MACs, and to be faster."""


def front_row(row: TrialRow, dense: Mapping[str, float]) -> dict[str, Any]:
    """A member of a front as printed; with its ratios where latency was measured, and what was asked for if it settled.

    Its layers are those of the model.
    """
    found, settled = ratios(row.measurements, dense), settled_layers(row)
    return {
        "trial": row.number,
        "measurements": dict(row.measurements),
        **({"ratios": found} if found else {}),
        "losses": dict(row.losses),
        **({} if row.cut_of is None else {"cut_of": row.cut_of}),
        **row.model_point.to_json(),
        **({"asked": {name: row.point.layers[name].to_json() for name in settled}} if settled else {}),
    }


def settled_layers(row: TrialRow) -> list[str]:
    """The layers that have other values than were asked for, as training has emptied components of theirs."""
    return [name for name, choice in row.model_point.layers.items() if choice != row.point.layers[name]]


def ratios(measurements: Mapping[str, float], dense: Mapping[str, float]) -> dict[str, float]:
    """How many times fewer MACs than the dense model, and how many times faster; nothing without a latency.

    >>> ratios({"macs": 50.0, "latency": 0.02}, {"macs": 100.0, "latency": 0.02})
    {'macs': 2.0, 'latency': 1.0}
    """
    if not (measurements.get("latency") and dense.get("latency")):
        return {}
    found = {name: _ratio(dense.get(name), measurements.get(name, 0.0)) for name in ("macs", "latency")}
    return {name: ratio for name, ratio in found.items() if ratio is not None}


def not_faster(found: Mapping[str, float]) -> str:
    """A sentence where the MACs are fewer and the model is not faster for it; nothing otherwise.

    >>> not_faster({"macs": 2.0, "latency": 1.01})
    'It has 2.0× fewer MACs than the dense model, but is not faster: 1.01× as measured.\\n'
    >>> not_faster({"macs": 2.0, "latency": 1.5})
    ''
    """
    macs, latency = found.get("macs", 1.0), found.get("latency", 1.0)
    if macs < FEWER_MACS or latency >= FASTER:
        return ""
    return f"It has {macs:.1f}× fewer MACs than the dense model, but is not faster: {latency:.2f}× as measured.\n"


def summary(study: StudySummary) -> Row:
    """A study of a list of studies."""
    return {
        "study": study.name,
        "created": study.created.isoformat(timespec="seconds"),
        "objectives": [objective.name for objective in study.objectives],
        "trials": {str(state): count for state, count in study.trials.items()},
        "in_flight": study.in_flight,
        "on_front": study.on_front,
    }


def short_row(row: TrialRow) -> Row:
    """A trial of a list of trials."""
    return {
        "trial": row.number,
        "state": str(row.state),
        "label": row.sampler.get("label", ""),
        "measurements": dict(row.measurements),
        "dominated_by": row.dominated_by,
        "seconds": round((row.finished - row.started).total_seconds(), 3),
        "reason": row.reason,
    }


def long_row(row: TrialRow, dense: Mapping[str, float]) -> dict[str, Any]:
    """All that is known of one trial."""
    return {
        **front_row(row, dense),
        "state": str(row.state),
        "reason": row.reason,
        "dominated_by": row.dominated_by,
        "label": row.sampler.get("label", ""),
        "budget": row.budget,
        "rng_seed": row.rng_seed,
        "worker": row.worker,
        "attempt": row.attempt,
        "started": row.started.isoformat(timespec="seconds"),
        "finished": row.finished.isoformat(timespec="seconds"),
        "artifacts": {each.kind: each.location for each in row.artifacts},
        "earlier": [{"budget": budget, **measured} for budget, measured in sorted(row.earlier.items())],
    }


def print_trial(shown: dict[str, Any], study: StudyRecord) -> None:
    """One trial as tables; a ratio says how many times better than the dense model's a measurement is."""
    layers, measurements, dense, earlier = (shown.pop(key) for key in ("layers", "measurements", "dense", "earlier"))
    bars, costs, asked = (shown.pop(key, {}) for key in ("plus_minus", "layer_costs", "asked"))
    print_rows([{"field": key, "value": value} for key, value in _pairs(shown)], OutputFormat.TABLE, "trial")
    rows = [
        {
            "measurement": key,
            "value": value,
            **({"±": bars.get(key)} if bars else {}),
            "dense": dense.get(key),
            "ratio": _times_better(study, key, dense.get(key), value),
        }
        for key, value in measurements.items()
    ]
    print_rows(rows, OutputFormat.TABLE, "measurements", empty="nothing was measured")
    if earlier:
        print_rows(earlier, OutputFormat.TABLE, "at smaller budgets")
    choices = [
        {"layer": key, **_became(asked.get(key, choice), choice), **_before_after(costs.get(key, {}))}
        for key, choice in layers.items()
    ]
    print_rows(choices, OutputFormat.TABLE, "layers", empty="no layers")


def layer_cost_rows(study: StudyRecord, row: TrialRow) -> dict[str, dict[str, Any]]:
    """What each layer costs as it is, and in this trial, by name; nothing where the store does not know it."""
    return {
        name: {"dense": dict(dense), "trial": dict(row.layer_costs.get(name, dense))}
        for name, dense in study.layer_costs.items()
        if row.model_point.layers.get(name, Choice()).is_dense or name in row.layer_costs
    }


def _before_after(costs: Mapping[str, Mapping[str, int]]) -> Row:
    """As columns: what is counted as it was, and as it is."""
    if not costs:
        return {}
    return {key: f"{costs['dense'][key]:,} → {costs['trial'][key]:,}" for key in costs["dense"]}


def _pairs(shown: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in shown.items()
        for pair in (
            [(f"{key}.{inner}", item) for inner, item in value.items()] if isinstance(value, dict) else [(key, value)]
        )
    ]


def _ratio(dense: float | None, value: float) -> float | None:
    return dense / value if dense is not None and value else None


def _times_better(study: StudyRecord, name: str, dense: float | None, value: float) -> float | None:
    """How many times less than the dense model's; how many times more where more is better."""
    if dense is not None and study.objective(name).direction == "maximize":
        return _ratio(value, dense)
    return _ratio(dense, value)


def _became(asked: dict[str, Any] | str, choice: dict[str, Any] | str) -> dict[str, Any]:
    """A choice, its values beside those asked for where they are others: `8 → 5`."""
    before, after = _choice(asked), _choice(choice)
    return {key: value if before[key] == value else f"{before[key]} → {value}" for key, value in after.items()}


def _choice(choice: dict[str, Any] | str) -> dict[str, Any]:
    return {"factorization": choice} if isinstance(choice, str) else choice
