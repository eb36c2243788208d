"""What `show` and `front` say of a trial whose model has become smaller than what was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rank_search.cli import store_verbs
from rank_search.point import Choice
from rank_search.store import Store
from tests.store.store_tools import a_point, a_record, complete, record

APP = typer.Typer(rich_markup_mode=None)
store_verbs.add_to(APP)

LAYER_COSTS = {"conv": {"params": 900, "macs": 9000}, "fc": {"params": 7, "macs": 7}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Trial 0 was asked for rank_in 3 and has become 2, trial 1 is what was asked."""
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        study = store.join(a_record(name="s", space={"layer_costs": LAYER_COSTS}))
        for number in range(2):
            asked = a_point(40 + number)
            became = replace(asked, layers={**asked.layers, "conv": Choice("tucker2", {"rank_out": 40, "rank_in": 2})})
            claim = store.claim(study, asked, "w", {"label": "x", "layer_costs": {"conv": {"params": 90, "macs": 900}}})
            assert claim is not None
            costs = {"conv": {"params": 60.0, "macs": 600.0}}
            settled = {"settled": became, "settled_costs": costs} if number == 0 else {}
            record(store, study, claim, replace(complete(a=number, b=2 - number), **settled))
    return tmp_path / "s.sqlite"


def run(*words: object) -> str:
    result = CliRunner().invoke(APP, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_show_puts_what_was_asked_beside_what_it_has_become(path: Path) -> None:
    shown = run("show", path, "s", 0)
    assert "3 → 2" in shown
    assert "900 → 60" in shown
    assert "40 → 40" not in shown
    assert "asked" not in shown
    (found,) = json.loads(run("show", path, "s", 0, "--format", "json"))
    assert found["layers"]["conv"] == {"factorization": "tucker2", "rank_out": 40, "rank_in": 2}
    assert found["asked"] == {"conv": {"factorization": "tucker2", "rank_out": 40, "rank_in": 3}}
    assert found["layer_costs"]["conv"]["trial"] == {"params": 60, "macs": 600}


def test_a_front_has_what_trials_have_become(path: Path) -> None:
    rows = json.loads(run("front", path, "s", "--format", "json"))
    assert [row["layers"]["conv"]["rank_in"] for row in rows] == [2, 3]
    assert ["asked" in row for row in rows] == [True, False]
    assert json.loads(run("front", path, "s", "--where", "conv.rank_in <= 2", "--format", "json")) == rows[:1]


def test_show_of_a_trial_that_is_what_was_asked_has_one_value(path: Path) -> None:
    assert "3 →" not in run("show", path, "s", 1)
