"""What a front says about speed: fewer MACs are one thing, less latency another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rank_search.cli import store_verbs
from rank_search.point import Objective
from rank_search.store import Store
from tests.store.store_tools import a_record, complete, finish

APP = typer.Typer(rich_markup_mode=None)
store_verbs.add_to(APP)

DENSE = {"error": 0.1, "macs": 1000.0, "latency": 0.004, "latency_ratio": 1.0}


def run(*words: object) -> str:
    result = CliRunner().invoke(APP, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A front of three: not faster, faster, and one whose MACs are those of the dense model."""
    objectives = (Objective("error"), Objective("macs"))
    box = {"error": 1.0, "macs": 2000.0}
    record = a_record(name="timed", objectives=objectives, dense=DENSE, reference_point=box, ideal={}, budget=2.0)
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        study = store.join(record)
        finish(store, study, complete(error=0.2, macs=500.0, latency=0.0039, latency_ratio=0.975))
        finish(store, study, complete(error=0.3, macs=250.0, latency=0.002, latency_ratio=0.5))
        finish(store, study, complete(error=0.1, macs=1000.0, latency=0.0041, latency_ratio=1.025))
        finish(store, store.join(a_record("minimize", name="untimed")), complete(a=1.0))
    return tmp_path / "s.sqlite"


def test_a_front_has_both_ratios_beside_each_other(path: Path) -> None:
    rows = {row["trial"]: row for row in json.loads(run("front", path, "timed", "--format", "json"))}
    assert rows[0]["ratios"] == {"macs": 2, "latency": pytest.approx(0.004 / 0.0039)}
    assert rows[1]["ratios"] == {"macs": 4, "latency": 2}
    header = run("front", path, "timed", "--format", "csv").splitlines()[0].split(",")
    assert header[header.index("ratios.macs") + 1] == "ratios.latency"
    assert "/ latency" in run("front", path, "timed")


def test_without_a_latency_there_are_no_ratios(path: Path) -> None:
    assert "ratios" not in run("front", path, "untimed", "--format", "json")
    assert "ratios" not in run("show", path, "untimed", 0)


@pytest.mark.parametrize(("trial", "said"), [(0, True), (1, False), (2, False)])
def test_show_says_if_fewer_macs_are_not_faster(path: Path, trial: int, said: bool) -> None:
    shown = run("show", path, "timed", trial)
    assert ("It has 2.0× fewer MACs than the dense model, but is not faster: 1.03× as measured." in shown) is said
    assert "│ ratios.latency" in shown
