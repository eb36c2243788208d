"""Printing rows: the same fields under the same names, as a table, as JSON, as CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from rank_search.basics import number
from rank_search.cli.output import OutputFormat, choices_in_short, print_rows

Capture = pytest.CaptureFixture[str]

ROWS: list[dict[str, Any]] = [
    {
        "trial": 1,
        "losses": {"macs": 1234567},
        "layers": {"a": "dense", "b": {"factorization": "tucker2", "rank_out": 4, "rank_in": 8}},
        "names": ["x", "y"],
        "on": True,
    },
    {"trial": 2, "losses": {"error": 0.0123456, "macs": 7}, "layers": {}, "names": [], "note": "new", "on": None},
]


def printed(capsys: Capture, rows: list[dict[str, Any]], format: OutputFormat, **how: str) -> str:
    capsys.readouterr()
    print_rows(rows, format, **how)
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_json_output_is_the_rows_given(capsys: Capture) -> None:
    assert json.loads(printed(capsys, ROWS, OutputFormat.JSON)) == ROWS
    assert printed(capsys, [], OutputFormat.JSON) == "[]\n"
    assert "é" in printed(capsys, [{"name": "é"}], OutputFormat.JSON)


def test_csv_names_inner_fields_after_outer_ones_and_keeps_them_together(capsys: Capture) -> None:
    reader = csv.DictReader(io.StringIO(printed(capsys, ROWS, OutputFormat.CSV)))
    first, second = reader
    assert reader.fieldnames == ["trial", "losses.macs", "losses.error", "layers", "names", "on", "note"]
    assert first["losses.macs"] == "1234567"
    assert first["layers"] == "a dense, b tucker2 4×8"
    assert first["names"] == "x, y"
    assert (first["losses.error"], first["note"], second["on"]) == ("", "", "")
    assert float(second["losses.error"]) == 0.0123456


def test_a_table_splits_names_at_the_first_dot(capsys: Capture) -> None:
    table = printed(capsys, ROWS, OutputFormat.TABLE, title="some rows")
    title, _, upper, lower, _, first, second, _ = table.splitlines()
    cells = [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in (upper, lower)]
    assert title.strip() == "some rows"
    assert cells == [
        ["", "losses", "losses", "", "", "", ""],
        ["trial", "macs", "error", "layers", "names", "on", "note"],
    ]
    assert [cell.strip() for cell in first.strip("│").split("│")] == [
        "1",
        "1,234,567",
        "–",
        "a dense, b tucker2 4×8",
        "x, y",
        "True",
        "–",
    ]
    assert "0.01235" in second


def test_nothing_is_said_to_be_nothing(capsys: Capture) -> None:
    assert printed(capsys, [], OutputFormat.TABLE, title="front of x", empty="no member") == "front of x: no member\n"
    assert printed(capsys, [], OutputFormat.TABLE) == "nothing to show\n"
    assert printed(capsys, [], OutputFormat.CSV).strip() == ""


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/]", "[link=file:///]", "\\[x]", ":smile:", "日本", "a\u0301"])
def test_a_table_takes_text_as_it_is(text: str, capsys: Capture) -> None:
    for out in (
        printed(capsys, [{"name": text, "layers": {text: "dense"}}], OutputFormat.TABLE, title=text),
        printed(capsys, [], OutputFormat.TABLE, title=text, empty=text),
    ):
        assert out.count(text) >= 2
        assert "\x1b" not in out


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), TEXTS, min_size=1), min_size=1, max_size=4))
def test_csv_gives_every_text_back(rows: list[dict[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", out := io.StringIO(newline=""))
        print_rows(rows, OutputFormat.CSV)
    given_back = list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))
    names = {name for row in rows for name in row}
    assert given_back == [{name: row.get(name, "") for name in names} for row in rows]


def test_a_wide_table_is_not_cut_where_nobody_looks(capsys: Capture) -> None:
    wide = "x" * 3000
    assert wide in printed(capsys, [{"name": wide}], OutputFormat.TABLE)


def test_choices_in_short() -> None:
    assert choices_in_short({}) == ""
    chosen = {"conv.1": {"factorization": "svd", "rank": 6}, "fc": "dense", "x": {"factorization": "t", "s": 0.25}}
    assert choices_in_short(chosen) == "conv.1 svd 6, fc dense, x t 0.25"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.5, "-0.5"),
        (12345, "12,345"),
        (12345.6, "12,346"),
        (0.000012345, "1.234e-05"),
        (1e20, "100,000,000,000,000,000,000"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_a_front_of_many_layers_fits_into_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    layers = {f"stage{k}.block.conv": {"factorization": "svd" if k % 3 else "tucker2", "rank": k} for k in range(18)}
    row = {
        "trial": 7,
        "measurements": {"error": 0.25, "macs": 1e9},
        "losses": {"error": 0.25, "macs": 1e9},
        "layers": layers,
        "penalties": {"entropy": 0.5, "orthogonality": 0.0},
    }
    print_rows([row], OutputFormat.TABLE)
    everything = capsys.readouterr().out
    assert all(name in everything for name in (*layers, "losses", "orthogonality"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    print_rows([row], OutputFormat.TABLE)
    shown = Text.from_ansi(capsys.readouterr().out).plain
    assert max(map(len, shown.splitlines())) <= 100
    assert "12 svd, 6 tucker2" in shown
    assert "entropy" in shown
    assert "losses" not in shown
    assert "orthogonality" not in shown
