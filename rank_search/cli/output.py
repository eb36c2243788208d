"""Printing rows: a table for people, JSON and CSV for programs, the same fields under the same names in each."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from rank_search.basics import cell
from rank_search.cli.narrow import in_lines, least_width


class OutputFormat(StrEnum):
    """What `--format` takes."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


Row = Mapping[str, Any]

_FEW_LAYERS: Final = 4


def print_rows(rows: Sequence[Row], format: OutputFormat, title: str = "", empty: str = "nothing to show") -> None:
    """Print rows in the format asked for. In tables and CSV a field inside a field is named `outer.inner`.

    A table that goes to a terminal has to fit into it: see `in_brief`; where numbers would have to be broken all the
    same, each row is a few lines of its own.
    """
    if format is OutputFormat.JSON:
        is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=not is_unicode) + "\n")
        return
    if format is OutputFormat.CSV:
        flat = [_flatten(row) for row in rows]
        writer = csv.DictWriter(sys.stdout, _columns(flat), lineterminator="\n")
        if flat:  # the columns are those of the rows
            writer.writeheader()
        writer.writerows(flat)
    elif rows:
        _print_table(rows, title)
    else:
        _console().print(f"{title}: {empty}" if title else empty, markup=False, highlight=False)


def _print_table(rows: Sequence[Row], title: str) -> None:
    console = _console()
    if not sys.stdout.isatty():
        console.print(table_of(rows, title))
        return
    shown = in_brief(rows)
    flat = [_flatten(row) for row in shown]
    if least_width(flat, columns := _columns(flat)) <= console.width:
        console.print(table_of(shown, title))
        return
    for line in [*([title] if title else []), *in_lines(flat, columns)]:
        console.print(line, markup=False, highlight=False)


def _columns(flat: Iterable[Row]) -> list[str]:
    """Every column once; those of one outer field side by side, even if the first rows lack some of them."""
    columns = list(dict.fromkeys(column for row in flat for column in row))
    outer = list(dict.fromkeys(column.split(".")[0] for column in columns))
    return sorted(columns, key=lambda column: outer.index(column.split(".")[0]))


def _flatten(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "layers" and isinstance(value, Mapping):
            flat[key] = choices_in_short(value)
        elif isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in _flatten(value).items()}
        elif isinstance(value, list | tuple):
            flat[key] = _sequence(value)
        else:
            flat[key] = value
    return flat


def _sequence(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


def choices_in_short(layers: Mapping[str, Any]) -> str:
    """All layers' choices in one line: `conv1 svd 6, conv2 tucker2 4×8, fc dense`."""
    return ", ".join(f"{name} {_choice_in_short(choice)}" for name, choice in layers.items())


def _choice_in_short(choice: Mapping[str, Any] | str) -> str:
    if isinstance(choice, str):
        return choice
    values = "×".join(f"{value:g}" for key, value in choice.items() if key != "factorization")
    return f"{choice['factorization']} {values}"


def in_brief(rows: Sequence[Row]) -> list[Row]:
    """Rows without what repeats their measurements or is 0 throughout, and with many layers only counted.

    >>> row = {"losses": {"error": 0.1}, "layers": {f"conv{k}": {"factorization": "svd", "rank": k} for k in range(9)}}
    >>> in_brief([row])
    [{'layers': '9 svd'}]
    """
    idle = {name for row in rows for name in row.get("penalties", {})}
    idle -= {name for row in rows for name, strength in row.get("penalties", {}).items() if strength}
    return [_row_in_brief(row, idle) for row in rows]


def _row_in_brief(row: Row, idle: Container[str]) -> Row:
    found = {key: value for key, value in row.items() if key != "losses"}
    if "penalties" in row:
        found["penalties"] = {name: value for name, value in row["penalties"].items() if name not in idle}
    layers = row.get("layers")
    if isinstance(layers, Mapping) and len(layers) > _FEW_LAYERS:
        names = Counter(each if isinstance(each, str) else each["factorization"] for each in layers.values())
        found["layers"] = _sequence(f"{count} {name}" for name, count in sorted(names.items()))
    return found


def table_of(rows: Sequence[Row], title: str = "") -> Table:
    """The rows as a table for people."""
    flat = [_flatten(row) for row in rows]
    columns = _columns(flat)
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in flat)
        table.add_column(column.replace(".", "\n", 1), justify="right" if numeric else "left", overflow="fold")
    for row in flat:
        table.add_row(*(cell(row.get(column)) for column in columns))
    return table


def _console() -> Console:
    """The terminal's own width; without a terminal, as wide as the table needs."""
    return Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)


def from_here(place: str) -> str:
    """A path as short as it can be written in the current folder; anything else as it is."""
    here = Path.cwd()
    try:
        return str(Path(place).relative_to(here)) if Path(place).is_absolute() else place
    except ValueError:
        return place
