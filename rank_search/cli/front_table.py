"""A front as a table for people: the dense model first, then the members, objectives before everything else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from rank_search.basics import COSTS, cell, ratio
from rank_search.cli.output import Row, choices_in_short, in_brief

if TYPE_CHECKING:
    from rank_search.store import StudyRecord, TrialRow

_TIMED: Final = ("macs", "latency")  # ratios of costs that need not be objectives to be asked for
_TEXT: Final = 24
"""Characters that the layers' choices take at least."""


@dataclass(frozen=True)
class _Column:
    """One column: what is written for the dense model, and for each member."""

    head: str
    dense: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """In characters, with its frame."""
        return 3 + max(map(len, (*self.head.split("\n"), self.dense, *self.cells)))


def print_front(rows: Sequence[TrialRow], study: StudyRecord, title: str, shown: Sequence[Row]) -> None:
    """Print members of a front below the dense model; on a terminal, as much of each as fits into its width.

    Args:
        shown: the rows as they are printed in other formats, for the layers' choices and the penalties.
    """
    terminal = shutil.get_terminal_size((100, 30)).columns if _is_terminal() else None
    more = sorted([*_more(rows, study), *_penalties(shown)], key=_says_least)
    (columns, hidden), text = _fitting(_needed(rows, study), more, terminal), _text(shown)
    table = Table(title=title, title_justify="left", caption=_caption(study, hidden), caption_justify="left")
    for column in columns:
        table.add_column(column.head, justify="right", no_wrap=True)
    table.add_column("layers", overflow="fold")
    for place, layers in enumerate(("", *text)):
        cells = (column.dense if place == 0 else column.cells[place - 1] for column in columns)
        table.add_row(*cells, layers, end_section=place == 0)
    Console(markup=False, emoji=False, width=terminal or 10_000).print(table)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _fitting(needed: list[_Column], more: list[_Column], width: int | None) -> tuple[list[_Column], list[_Column]]:
    """The columns that fit beside the layers, and those that do not."""
    kept, free = list(needed), (width or 10_000) - _TEXT - sum(column.width for column in needed)
    for place, column in enumerate(more):
        free -= column.width
        if free < 0:
            return kept, more[place:]
        kept.append(column)
    return kept, []


def _needed(rows: Sequence[TrialRow], study: StudyRecord) -> list[_Column]:
    """The number, each objective, and how many times less a cost is than the dense model's."""
    columns = [_Column("trial", "dense", [str(row.number) for row in rows])]
    for name in study.objective_names:
        columns.append(_measured(name, rows, study))
        if name in COSTS and study.dense.get(name):
            columns.append(_ratio(name, rows, study))
    return columns


def _more(rows: Sequence[TrialRow], study: StudyRecord) -> list[_Column]:
    names = dict.fromkeys(name for row in rows for name in row.measurements)
    others = [name for name in names if name not in study.objective_names]
    timed = [name for name in others if name in _TIMED and study.dense.get(name)]
    return [*(_ratio(name, rows, study) for name in timed), *(_measured(name, rows, study) for name in others)]


def _says_least(column: _Column) -> bool:
    """Whether it is the first to give way on a narrow terminal: mostly nonzeros are what parameters are."""
    return column.head == "nonzeros"


def _measured(name: str, rows: Sequence[TrialRow], study: StudyRecord) -> _Column:
    def written(value: float | None) -> str:
        return cell(value, None if value is None else study.error_bar(name, value))

    return _column(name.replace("_", "_\n", 1) if len(name) > 12 else name, written, name, rows, study)


def _ratio(name: str, rows: Sequence[TrialRow], study: StudyRecord) -> _Column:
    dense = study.dense[name]
    return _column(f"dense\n/ {name}", lambda value: ratio(dense, value), name, rows, study)


def _column(
    head: str, written: Callable[[float | None], str], name: str, rows: Sequence[TrialRow], study: StudyRecord
) -> _Column:
    return _Column(head, written(study.dense.get(name)), [written(row.measurements.get(name)) for row in rows])


def _penalties(shown: Sequence[Row]) -> list[_Column]:
    brief: list[dict[str, Any]] = [dict(row.get("penalties", {})) for row in in_brief(shown)]
    names = dict.fromkeys(name for row in brief for name in row)
    return [_Column(name, "–", [cell(row.get(name)) for row in brief]) for name in names]


def _text(shown: Sequence[Row]) -> list[str]:
    """What was chosen for the layers, in short; of many layers only how many there are of each choice."""
    layers = [row.get("layers", {}) for row in (in_brief(shown) if _is_terminal() else shown)]
    return [each if isinstance(each, str) else choices_in_short(each) for each in layers]


def _caption(study: StudyRecord, hidden: Sequence[_Column]) -> str | None:
    bars = any(study.error_bar(name, study.dense.get(name, -1.0)) is not None for name in study.objective_names)
    said = [f"± is half of the 95 % interval on {study.examples:,} selection examples"] if bars else []
    names = ", ".join(column.head.replace("\n", "") for column in hidden)
    said += [f"too wide for {names}: --format csv has all"] if hidden else []
    meanings = [f"{name}: {meant}" for name, meant in study.objectives_in_words.items()]
    return "\n".join(filter(None, ["; ".join(said), *meanings])) or None
