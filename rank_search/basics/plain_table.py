"""Rows as a table of plain text, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from rank_search.basics.number_formats import cell

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
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell(value))}</td>' for value in row.values())}</tr>" for row in shown)
    caption = escape(" ".join([title, *_more(rows)]))
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _more(rows: Rows) -> list[str]:
    return [f"… and {len(rows) - _MOST:,} more"] if len(rows) > _MOST else []


def _column(name: str, values: Sequence[Any]) -> list[str]:
    cells = [name, *map(cell, values)]
    width = max(map(len, cells))
    is_numeric = all(isinstance(value, int | float | None) for value in values)
    return [each.rjust(width) if is_numeric else each.ljust(width) for each in cells]
