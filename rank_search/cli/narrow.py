"""Rows on a terminal that is too narrow for a table of them: a few lines for each, and no number broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rank_search.basics import cell

_TEXT: Final = 8
"""Columns of text may be folded to this width."""


def least_width(flat: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> int:
    """How wide a table of these rows is at least, with every number in one piece.

    >>> least_width([{"macs": 12776, "label": "a long label"}], ["macs", "label"])
    21
    """
    return 1 + sum(3 + _column_width([row.get(column) for row in flat]) for column in columns)


def in_lines(flat: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Each row as its fields, one after the other, without those that are empty.

    >>> in_lines([{"trial": 3, "measurements.macs": 12776, "reason": ""}], ["trial", "measurements.macs", "reason"])
    ['trial 3 · macs 12,776']
    """
    inner = {column: column.rpartition(".")[2] for column in columns}
    often = Counter(inner.values())
    names = {column: name if often[name] == 1 else column for column, name in inner.items()}
    return [
        " · ".join(f"{names[column]} {cell(row[column])}" for column in columns if row.get(column) not in (None, ""))
        for row in flat
    ]


def _column_width(values: Sequence[Any]) -> int:
    widest = max(len(cell(value)) for value in values)
    return widest if all(isinstance(value, int | float | None) for value in values) else min(widest, _TEXT)
