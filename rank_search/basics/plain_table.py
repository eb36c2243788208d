"""Rows as a table of plain text, and as HTML for notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

_MOST: Final = 60
"""Rows that are shown; more are counted."""

Rows = Sequence[Mapping[str, Any]]
"""All with the same keys, in the order of the columns."""


def text_table(rows: Rows, title: str) -> str:
    """The title, a line of column names and a line for each row; numbers to the right.

    >>> print(text_table([{"layer": "conv", "params": 1200}, {"layer": "fc", "params": 64}], "layers"))
    layers
    layer  params
    conv    1,200
    fc         64
    """
    shown = rows[:_MOST]
    if not shown:
        return f"{title}: none"
    columns = [_column(name, [row[name] for row in shown]) for name in shown[0]]
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join([title, *lines, *_more(rows)])


def html_table(rows: Rows, title: str) -> str:
    """The same as an HTML table, everything in it escaped."""
    shown = rows[:_MOST]
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in (shown[0] if shown else ()))
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_short(value))}</td>' for value in row.values())}</tr>" for row in shown
    )
    caption = escape(" ".join([title, *_more(rows)]))
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _more(rows: Rows) -> list[str]:
    return [f"… and {len(rows) - _MOST:,} more"] if len(rows) > _MOST else []


def _column(name: str, values: Sequence[Any]) -> list[str]:
    cells = [name, *map(_short, values)]
    width = max(map(len, cells))
    is_numeric = all(isinstance(value, int | float | None) for value in values)
    return [cell.rjust(width) if is_numeric else cell.ljust(width) for cell in cells]


def _short(value: Any) -> str:
    """Four significant digits, thousands apart; a dash for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isfinite(value) and value == int(value):
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
