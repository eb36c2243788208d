"""Trials as a table: for pandas, and as HTML for notebooks. Names are other people's, so all of them are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from rank_search.basics import cell
from rank_search.point import Choice
from rank_search.store.records import StudyRecord, TrialRow

if TYPE_CHECKING:
    import pandas as pd

_MOST: Final = 50
"""Rows of an HTML table; more are counted."""

Columns = Mapping[str, Sequence[Any]]


def to_pandas(rows: Iterable[TrialRow]) -> pd.DataFrame:
    """A row for each trial, indexed by its number.

    Columns: state, budget, seconds, dominated_by; `measurement`s by their names; `penalty.NAME`; for each layer `LAYER`
    (its factorization) and `LAYER.AXIS`. What a trial lacks is NaN.
    """
    import pandas as pd

    records = [_record(row) for row in rows]
    return pd.DataFrame.from_records(records, columns=None if records else ["trial"]).set_index("trial")


def _record(row: TrialRow) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for layer, choice in row.model_point.layers.items():
        chosen[layer] = choice.factorization
        chosen |= {f"{layer}.{axis}": value for axis, value in choice.values.items()}
    return {
        "trial": row.number,
        "state": str(row.state),
        "budget": row.budget,
        "seconds": (row.finished - row.started).total_seconds(),
        "dominated_by": row.dominated_by,
        **row.measurements,
        **{f"penalty.{name}": strength for name, strength in row.point.penalties.items()},
        **chosen,
    }


def columns_of(rows: Iterable[TrialRow], first: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of a short table: number, measurements (those named first), and what was chosen, in short."""
    kept = list(rows)
    others = sorted({name for row in kept for name in row.measurements} - set(first))
    columns: dict[str, list[Any]] = {"trial": [row.number for row in kept]}
    columns |= {name: [row.measurements.get(name) for row in kept] for name in (*first, *others)}
    return columns | {"factorized": [_factorized(row.model_point.layers.values()) for row in kept]}


def _factorized(choices: Iterable[Choice]) -> str:
    kept = list(choices)
    return f"{sum(not choice.is_dense for choice in kept)} of {len(kept)} layers"


def trial_html(row: TrialRow) -> str:
    """One trial: its measurements, and what was chosen for each layer."""
    state = f"{row.state}" + (f", dominated by trial {row.dominated_by}" if row.dominated_by is not None else "")
    measured: Columns = {"measurement": list(row.measurements), "value": list(row.measurements.values())}
    choices = row.model_point.layers.values()
    chosen: Columns = {
        "layer": list(row.model_point.layers),
        "factorization": [choice.factorization for choice in choices],
        "values": [", ".join(f"{axis} {value:g}" for axis, value in choice.values.items()) for choice in choices],
    }
    return to_html(f"trial {row.number}", measured, state) + to_html(f"layers of trial {row.number}", chosen)


def study_html(study: StudyRecord) -> str:
    """A study: its objectives, the dense model's measurements, and the rank priors."""
    columns: Columns = {
        "objective": [each.name for each in study.objectives],
        "direction": [each.direction for each in study.objectives],
        "dense": [study.dense.get(each.name) for each in study.objectives],
        "reference": [study.reference_point.get(each.name) for each in study.objectives],
    }
    return to_html(f"study {study.name}", columns, f"{study.budget:g} epochs a trial")


def to_html(title: str, columns: Columns, note: str = "") -> str:
    """A table with a caption, its numbers short; the first rows only, if there are many."""
    count = len(next(iter(columns.values()), ()))
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(column[place]))}</td>" for column in columns.values()) + "</tr>"
        for place in range(min(count, _MOST))
    )
    more = f"; the first {_MOST} are shown" if count > _MOST else ""
    caption = f"<caption>{escape(title)}{f' ({escape(note)}{more})' if note else ''}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
