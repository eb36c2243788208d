"""Patterns that say which layers share a choice, against globs and against groups made by hand."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.errors import LayerError
from rank_search.layers import Layer, LayersSettings
from rank_search.layers.tie_patterns import TiePattern, tied

PARTS = ("attention.q", "attention.k", "attention.v", "attention.o", "mlp.gate", "mlp.up", "mlp.down")


def named(blocks: int) -> dict[str, Layer]:
    names = ["embed", *(f"layers.{block}.{part}" for block in range(blocks) for part in PARTS), "head"]
    return {name: Layer(name, "linear", (4, 4)) for name in names}


def groups(blocks: int, *tie: tuple[str, ...]) -> set[tuple[str, ...]]:
    found = LayersSettings(tie=tie).groups(named(blocks))
    assert all(first == members[0] for first, members in found.items())
    assert sorted(sum(found.values(), ())) == sorted(named(blocks))
    return {members for members in found.values() if len(members) > 1}


@given(st.text("ab.*?[!]-", max_size=8), st.text("ab.-", max_size=8))
def test_a_pattern_that_captures_nothing_is_a_glob(glob: str, name: str) -> None:
    matched = TiePattern.of(glob).captured(name)
    assert matched == (() if name == glob or fnmatchcase(name, glob) else None)


@given(st.text("ab.*?[!]-", max_size=8), st.text("ab.-", max_size=8))
def test_what_is_no_capture_in_a_pattern_matches_as_in_a_glob(glob: str, name: str) -> None:
    expected = (("end", "z"),) if fnmatchcase(name, glob) else None
    assert TiePattern.of(f"{glob}.{{end}}").captured(f"{name}.z") == expected
    assert (TiePattern.of(f"(no|{glob}).z").captured(f"{name}.z") is not None) == (name == "no" or expected is not None)


@given(st.integers(1, 24), st.integers(1, 9))
def test_so_many_consecutive_blocks_share(blocks: int, width: int) -> None:
    by_hand: dict[tuple[int, bool], list[str]] = {}
    for block in range(blocks):
        by_hand[block // width, True] = by_hand.get((block // width, True), [])
        by_hand[block // width, True] += [f"layers.{block}.attention.q", f"layers.{block}.attention.k"]
    found = groups(blocks, (f"layers.{{block:{width}}}.attention.(q|k)",))
    assert found == {tuple(members) for members in by_hand.values()}
    assert found == groups(blocks, (f"layers.{{b:{width}}}.*.q", f"layers.{{b:{width}}}.*.k"))


@given(st.integers(2, 12))
def test_parts_between_dots_are_told_apart(blocks: int) -> None:
    rows = {tuple(f"layers.{block}.{part}" for block in range(blocks)) for part in PARTS}
    assert groups(blocks, ("layers.*.{kind}.{part}",)) == rows
    by_block = {tuple(f"layers.{block}.{part}" for part in PARTS) for block in range(blocks)}
    assert groups(blocks, ("layers.{block}.*",)) == by_block


def test_the_groups_of_bolaco() -> None:
    """One ratio for queries and keys and one for each other type; values stay apart. Then the same by four blocks."""
    types = groups(32, ("layers.*.attention.(q|k)",), ("layers.*.attention.o",), ("layers.*.mlp.{part}",))
    assert sorted(map(len, types)) == [32, 32, 32, 32, 64]
    lists = ("layers.{b:8}.attention.(q|k)",), ("layers.{b:8}.attention.o",), ("layers.{b:8}.mlp.{part}",)
    assert sorted(map(len, groups(32, *lists))) == [8] * 16 + [16] * 4


def test_a_pattern_that_is_a_name_means_that_layer() -> None:
    names = ["x.(q|k)", "x.q", "{y}", "z"]
    assert list(tied(["x.(q|k)"], names)) == ["x.(q|k)"]
    assert list(tied(["{y}"], names)) == ["{y}"]
    assert list(tied(["[{]?[}]"], [*names, "{a}"])) == ["{y}", "{a}"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["layers.{block"], r"'\{' captures nothing"),
        (["layers.block}"], r"'\}' captures nothing"),
        (["layers.{}"], r"'\{\}' captures nothing"),
        (["layers.{block:0}"], r"'\{block:0\}' captures nothing"),
        (["layers.{block:x}"], r"'\{block:x\}' captures nothing"),
        (["{a}.{a}"], r"'\{a\}' stands there twice"),
        (["({a}|b)"], r"'\{a\}' stands in parentheses"),
        (["{a}.(b|c"], r"'\(' has no '\)' after it"),
        (["{a}.b|c"], r"'\|' has no '\(' before it"),
        (["{a}.b)"], r"'\)' has no '\(' before it"),
        (["layers.{block}.attention.(x|y)"], "matches no layer; each pattern must match one"),
        (["layers.*.attention.q", "layers.{block}.attention.nothing"], "capture different parts"),
        (["layers.{a:2}.attention.q", "layers.{a:4}.attention.k"], "capture different parts"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(LayerError, match=said):
        tied(texts, named(4))


def test_a_layer_in_two_lists_is_refused() -> None:
    with pytest.raises(LayerError, match=r"layers\.0\.attention\.q, .* is in two lists of \[layers\] tie"):
        groups(4, ("layers.{block:4}.attention.q",), ("layers.{block}.attention.(q|k)",))
