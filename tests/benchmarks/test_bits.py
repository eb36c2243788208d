"""Rows of `benchmarks.bits`: which are kept, which are made again, and which is chosen."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bits
from benchmarks.bits import Bench, chosen
from rank_search.store import half_width


def bench_in(folder: Path, **changed: Any) -> Bench:
    given = {"epochs": 6, "dense_epochs": 8, "tables": {}, **changed}
    return Bench("lenet-5", None, "fashion", folder, argparse.Namespace(**given))  # type: ignore[arg-type]


def row_of(error: float, size: int = 1000) -> Mapping[str, Any]:
    return {"bytes": size, "error": error}


OTHERS: list[dict[str, Any]] = [
    {"epochs": 12},
    {"dense_epochs": 6},
    {"tables": {"training": {"average": 0.9}}},
]


@pytest.mark.parametrize("changed", OTHERS)
def test_a_row_of_other_settings_is_made_beside_the_first(tmp_path: Path, changed: Mapping[str, Any]) -> None:
    bench_in(tmp_path).add("entropy", "λ 1", lambda: row_of(0.1))
    bench_in(tmp_path, **changed).add("entropy", "λ 1", lambda: row_of(0.2))
    assert [row["error"] for row in bench_in(tmp_path).rows] == [0.1, 0.2]


def test_a_row_of_the_same_settings_is_not_made_again(tmp_path: Path) -> None:
    for error in (0.1, 0.2):
        bench_in(tmp_path).add("entropy", "λ 1", lambda error=error: row_of(error))  # type: ignore[misc]
    assert [row["error"] for row in bench_in(tmp_path).rows] == [0.1]


def test_rows_of_other_data_are_no_rows(tmp_path: Path) -> None:
    fashion = bench_in(tmp_path)
    digits = replace(fashion, data="digits")
    fashion.add("entropy", "λ 1", lambda: row_of(0.1))
    assert digits.rows == []
    digits.add("entropy", "λ 1", lambda: row_of(0.2))
    assert [[row["error"] for row in bench.rows] for bench in (fashion, digits)] == [[0.1], [0.2]]


def test_chosen_is_the_smallest_file_that_is_as_accurate_as_its_dense_network(tmp_path: Path) -> None:
    bench, other = bench_in(tmp_path), bench_in(tmp_path, dense_epochs=1)
    margin = half_width(0.08, 5000)
    bench.add("dense", "32 bits", lambda: row_of(0.08, 9000))
    bench.add("entropy", "λ 0.3", lambda: row_of(0.07, 3000))
    bench.add("entropy", "λ 1", lambda: row_of(0.08 + margin - 1e-4, 2000))
    bench.add("entropy", "λ 3", lambda: row_of(0.08 + margin + 1e-4, 1000))
    other.add("dense", "32 bits", lambda: row_of(0.2, 9000))
    other.add("entropy", "λ 3", lambda: row_of(0.2, 500))
    assert sorted(row["bytes"] for row in chosen(bench.rows) if row["method"] == "entropy") == [500, 2000]


def test_a_row_of_another_training_of_the_network_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench_in(tmp_path).add("entropy", "λ 1", lambda: row_of(0.1))
    monkeypatch.setattr(bits, "TRAINING", {"lenet-5": {"learning_rate": 1e-4}})
    bench_in(tmp_path).add("entropy", "λ 1", lambda: row_of(0.2))
    assert [row["error"] for row in bench_in(tmp_path).rows] == [0.1, 0.2]
