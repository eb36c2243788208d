from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rank_search.cli.main import app
from rank_search.errors import ExportError, QueryError
from rank_search.figures import compare_studies, draw_comparison, draw_front, drawn_panels, in_terminal, rows_of
from rank_search.pareto import ReferenceBox
from rank_search.store import Store
from tests.store.store_tools import a_record, fill, finish, stopped

BOX = ReferenceBox((-10.0, -10.0), (10.0, 10.0))
ODD = "<script>$x_1$ 'ä\""
TABLES = {
    "first": [(9.0, 9.0), (1.0, 5.0), (5.0, 1.0), (2.0, 2.0)],
    "second": [(8.0, 8.0), (3.0, 3.0)],
    ODD: [(4.0, 4.0)],
}


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures") / "s.sqlite"


@pytest.fixture(scope="module")
def filled(location: Path) -> Iterator[Store]:
    with Store.open(str(location), create=True) as store:
        for name, table in TABLES.items():
            fill(store, store.join(a_record("minimize", "minimize", name=name)), table)
        yield store


def test_a_panel_has_every_complete_trial_once(filled: Store) -> None:
    study = filled.study("first")
    finish(filled, study, stopped(a=0.1, b=0.1), budget=1.0)
    (panel,) = drawn_panels(filled, study)
    assert (panel.upwards, panel.across) == ("a", "b")
    assert panel.front == ((1.0, 5.0), (2.0, 2.0), (5.0, 1.0))
    assert panel.knee is not None
    assert panel.knee[0] == 3
    assert panel.dominated == ((9.0, 9.0),)
    assert panel.dense == (8.0, 4.0)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_pictures_are_written_for_names_of_any_characters(filled: Store, tmp_path: Path, suffix: str) -> None:
    front, both = tmp_path / f"front{suffix}", tmp_path / f"both{suffix}"
    draw_front(drawn_panels(filled, filled.study(ODD)), front)
    draw_comparison(compare_studies(filled, ["first", "pair=second,first", ODD]), both)
    starts = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    for picture in (front, both):
        assert picture.read_bytes().startswith(starts[suffix])
        assert b"<script>" not in picture.read_bytes()


def test_the_same_front_is_the_same_picture(filled: Store, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_front(drawn_panels(filled, filled.study("second")), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_picture_that_cannot_be_drawn_is_refused(filled: Store, tmp_path: Path) -> None:
    panels = drawn_panels(filled, filled.study("second"))
    with pytest.raises(ExportError, match=r"does not end in \.svg"):
        draw_front(panels, tmp_path / "front.bmp")
    with pytest.raises(ExportError, match="could not be written"):
        draw_front(panels, tmp_path / "nowhere" / "front.svg")
    with pytest.raises(QueryError, match="a cannot be drawn alone"):
        drawn_panels(filled, filled.study("second"), ["a"])
    with pytest.raises(QueryError, match="speed"):
        drawn_panels(filled, filled.study("second"), ["a", "speed"])


def test_studies_are_compared_in_one_box_after_as_many_trials(filled: Store) -> None:
    rows = rows_of(compare_studies(filled, ["first", "second", "both=first,second"]))
    assert [row["study"] for row in rows] == ["first", "second", "both"]
    two = [BOX.hypervolume(TABLES[name][:2]) for name in ("first", "second")]
    assert [row["hypervolume"]["2"] for row in rows[:2]] == pytest.approx(two, abs=1e-4)
    assert rows[2]["hypervolume"]["2"] == f"{sum(two) / 2:.4f} [{min(two):.4f}, {max(two):.4f}]"


def test_compared_hypervolumes_are_those_after_exactly_as_many_trials(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few moments of a long study are looked at."""
    monkeypatch.setattr(importlib.import_module("rank_search.pareto.convergence"), "MOMENTS", 2)
    rows = rows_of(compare_studies(filled, ["first", "second"]))
    expected = [BOX.hypervolume(TABLES[name][:2]) for name in ("first", "second")]
    assert [row["hypervolume"]["2"] for row in rows] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("names", [["first"], ["first", "first"], ["first", "none"]])
def test_one_study_alone_or_unknown_is_not_compared(filled: Store, names: list[str]) -> None:
    with pytest.raises(QueryError):
        compare_studies(filled, names)


def test_studies_of_other_objectives_are_not_compared(filled: Store) -> None:
    filled.join(a_record("minimize", "maximize", name="other way"))
    with pytest.raises(QueryError, match=r"it has the objectives a \(minimize\), b \(maximize\)"):
        compare_studies(filled, ["first", "other way"])


def test_the_terminal_shows_the_front(filled: Store) -> None:
    (panel,) = drawn_panels(filled, filled.study("first"))
    drawn = in_terminal(panel, 60, 15, color=False)
    assert "●" in drawn
    assert "◆" in drawn
    assert "\x1b" not in drawn
    assert max(map(len, drawn.splitlines())) <= 60


def test_the_verbs_plot_front_and_compare(filled: Store, location: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    picture = tmp_path / "f.svg"
    assert run(app, ["plot", str(location), "first", "-o", str(picture)]).exit_code == 0
    assert picture.exists()
    shown = run(app, ["front", str(location), "first", "--plot", "--knee"])
    assert "●" in shown.output
    compared = run(app, ["compare", str(location), "first", "second", "--format", "csv"])
    assert compared.output.splitlines()[0] == "study,studies,trials,front,hypervolume.2"


@pytest.mark.parametrize(
    ("options", "number"),
    [(["--knee"], 3), (["--closest", "a=4.5"], 2), (["--budget", "b<=1.5"], 2), (["--budget", "a<=1"], 1)],
)
def test_front_chooses_one_member(filled: Store, location: Path, options: list[str], number: int) -> None:
    shown = CliRunner().invoke(app, ["front", str(location), "first", *options, "--format", "json"])
    assert f'"trial": {number}' in shown.output
    assert shown.output.count('"trial"') == 1


def test_front_refuses_two_ways_to_choose_a_member(filled: Store, location: Path) -> None:
    refused = CliRunner().invoke(app, ["front", str(location), "first", "--knee", "--closest", "a=1"])
    assert isinstance(refused.exception, QueryError)
