"""Rows as text and as HTML."""

from __future__ import annotations

from rank_search.basics import html_table, text_table

ROWS = [{"layer": "<b>", "params": 1200, "error": None}, {"layer": "fc", "params": 64, "error": 0.25}]


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    head, first, second = text_table(ROWS, "layers").splitlines()[1:]
    assert head == "layer  params  error"
    assert first == "<b>     1,200      –"
    assert second == "fc         64   0.25"


def test_html_is_escaped() -> None:
    page = html_table(ROWS, "a < b")
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "<caption>a &lt; b</caption>" in page


def test_long_tables_are_cut_and_counted() -> None:
    many = [{"n": n} for n in range(100)]
    assert text_table(many, "numbers").splitlines()[-1] == "… and 40 more"
    assert "… and 40 more" in html_table(many, "numbers")


def test_no_rows_are_said_to_be_none() -> None:
    assert text_table([], "layers") == "layers: none"
    assert "<tbody></tbody>" in html_table([], "layers")
