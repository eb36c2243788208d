"""What the page is told, held against the store and against the slow and obvious."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rank_search.errors import ExportError, QueryError
from rank_search.pareto import ReferenceBox
from rank_search.point import Choice, Point
from rank_search.report import Reference, ReportOptions, write_report
from rank_search.report.choices import layers_of
from rank_search.report.commands import commands
from rank_search.report.contents import contents
from rank_search.report.importance import associations
from rank_search.report.page import render
from rank_search.store import Store
from tests.report.report_tools import HOSTILE, Many, fill, study_record
from tests.store.store_tools import slow_front

COUNT = 40


@pytest.fixture(scope="module")
def shown_and_rows(tmp_path_factory):
    where = tmp_path_factory.mktemp("contents") / "s.sqlite"
    with Store.open(where, create=True) as store:
        study = fill(store, study_record(("error", "macs", "bits"), name="s"), COUNT)
        ours = Reference.parse("ours:error=0.1,macs=0.5*dense")
        shown = contents(store, str(where), "s", ReportOptions([ours]))
        return shown, store.trials(study), store.front(study), study


def test_members_are_the_front_of_the_store(shown_and_rows) -> None:
    shown, _, front, _ = shown_and_rows
    trials = shown["trials"]
    members = {number for number, member in zip(trials["number"], trials["member"], strict=True) if member}
    assert members == {row.number for row in front}
    assert shown["study"]["members"] == len(members)


def test_each_pair_has_its_own_front_by_brute_force(shown_and_rows) -> None:
    shown, rows, _, _ = shown_and_rows
    assert [(pair["x"], pair["y"]) for pair in shown["pairs"]] == [
        ("macs", "error"),
        ("bits", "error"),
        ("bits", "macs"),
    ]
    for pair in shown["pairs"]:
        places = [place for place, row in enumerate(rows) if row.losses]
        table = [[rows[place].losses[pair["x"]], rows[place].losses[pair["y"]]] for place in places]
        assert set(pair["front"]) == {places[each] for each in slow_front(table)}
        values = [rows[place].measurements[pair["x"]] for place in pair["front"]]
        assert values == sorted(values)


def test_each_choice_can_be_read_back(shown_and_rows) -> None:
    shown, rows, _, _ = shown_and_rows
    for layer in shown["layers"]:
        for place, row in enumerate(rows):
            choice = row.point.layers[layer["name"]]
            assert layer["choices"][layer["picks"][place]] == {
                "factorization": choice.factorization,
                "values": dict(choice.values),
            }


def test_a_choice_that_has_settled_has_what_was_asked_beside_it() -> None:
    many = Many.of(1, ["error", "macs"], ["conv"])
    asked, became = Choice("svd", {"rank": 9}), Choice("svd", {"rank": 4})
    notes = {"label": "x", "layer_costs": {"conv": {"params": 90, "macs": 900}}}
    settled = {**Point({"conv": became}).to_json(), "layer_costs": {"conv": {"params": 40, "macs": 400}}}
    point = json.dumps(Point({"conv": asked}).to_json())
    whole = replace(many.rows[0], point_json=point, sampler_json=json.dumps(notes))
    (layer,) = layers_of(many.record, [replace(whole, settled_json=json.dumps(settled)), whole])
    assert [layer["choices"][pick] for pick in layer["picks"]] == [
        {"factorization": "svd", "values": {"rank": 4}, "asked": {"rank": 9}, "cost": {"params": 40, "macs": 400}},
        {"factorization": "svd", "values": {"rank": 9}, "cost": {"params": 90, "macs": 900}},
    ]


def test_convergence_ends_at_the_hypervolume_of_the_front(shown_and_rows) -> None:
    shown, rows, front, study = shown_and_rows
    tolerated = {**study.reference_point, **study.tolerated(1 / 3)}
    box = ReferenceBox(*(tuple(corner[name] for name in study.objective_names) for corner in (study.ideal, tolerated)))
    found = shown["convergence"]
    table = [[row.losses[name] for name in study.objective_names] for row in front]
    assert found["shares"][-1] == pytest.approx(box.hypervolume(table))
    assert found["shares"] == sorted(found["shares"])
    given_points = [row for row in rows if row.losses and row.sampler["label"] != "auto"]
    table = [[row.losses[name] for name in study.objective_names] for row in given_points]
    assert found["seeds"] == pytest.approx(box.hypervolume(table))


def test_convergence_of_many_trials_is_taken_at_some_of_them() -> None:
    many = Many.of(900, ("error", "macs"), ["conv"])
    found = contents(many, "m.sqlite", "many")["convergence"]  # type: ignore[arg-type]
    assert len(found["trials"]) < 200
    assert found["trials"][0] == 1
    assert found["trials"][-1] == 900
    table = [[row.losses["error"], row.losses["macs"]] for row in many.rows]
    assert found["shares"][-1] == pytest.approx(ReferenceBox((0.0, 0.0), (0.01 + 0.99 / 3, 1e8)).hypervolume(table))


def test_rank_correlations_are_scipys(shown_and_rows) -> None:
    _, rows, _, _ = shown_and_rows
    kept = [row for row in rows if row.losses]
    found = {each.coordinate: each for each in associations(kept, ["error"])["error"]}
    errors = [row.measurements["error"] for row in kept]
    for name in ("weakening", "multiplier:head"):
        wanted = spearmanr([row.sampler["coordinates"][name] for row in kept], errors).statistic
        assert found[name].strength == pytest.approx(wanted)
    assert 0 <= found["factorization:head"].strength <= 1
    assert not found["factorization:head"].ordered


def test_a_category_that_determines_the_objective_has_the_correlation_ratio_one() -> None:
    rows = [_told(k, "ab"[k % 2], float(k % 2)) for k in range(20)]
    assert associations(rows, ["a"])["a"][0].strength == pytest.approx(1.0)  # type: ignore[arg-type]
    assert associations(rows[:5], ["a"])["a"] == []  # type: ignore[arg-type]


def _told(k: int, category: str, value: float) -> object:
    class Row:
        sampler = {"coordinates": {"which": category}}  # noqa: RUF012
        measurements = {"a": value}  # noqa: RUF012

    return Row()


def test_a_reference_is_placed_in_the_dense_models_units(shown_and_rows) -> None:
    shown, _, _, study = shown_and_rows
    assert shown["references"] == [{"name": "ours", "values": {"error": 0.1, "macs": 0.5 * study.dense["macs"]}}]


@pytest.mark.parametrize("text", ["error=1", ":error=1", "x:", "x:error", "x:error=nan", "x:error=1,error=2", "x:e=1e"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="is no reference, which is NAME:MEASUREMENT=NUMBER"):
        Reference.parse(text)


def test_a_reference_relative_to_an_unmeasured_name_is_refused() -> None:
    with pytest.raises(QueryError, match="there are error"):
        Reference.parse("x:latency=0.5*dense").absolute({"error": 0.1})


@given(st.text(min_size=1).filter(lambda name: "\0" not in name), st.integers(0, 10**6))
def test_commands_quote_any_name_of_a_study(name: str, trial: int) -> None:
    for command in commands("a b'c.sqlite", name):
        words = shlex.split(command.of(trial))
        assert words[-3:] == [str(Path("a b'c.sqlite").absolute()), name, str(trial)]
        assert not name.startswith("-") or "--" in words


@pytest.mark.parametrize(
    "store", ["postgresql://me:secret@db/x", "postgresql://me@db/x?password=secret", "postgresql://me@db/x"]
)
def test_no_password_is_on_the_page(store: str) -> None:
    text = " ".join(command.of(3) for command in commands(store, "s"))
    assert "secret" not in text
    assert ("$RANK_SEARCH_STORE" in text) == ("secret" in store)


def test_the_data_of_the_page_cannot_end_its_script(hostile_store: Path) -> None:
    with Store.open(hostile_store) as store:
        page = render(contents(store, str(hostile_store), HOSTILE))
    data = re.findall(r'<script type="application/json" id="contents">(.*?)</script>', page, re.DOTALL)
    assert len(data) == 1
    assert "<" not in data[0]
    assert json.loads(data[0])["study"]["name"] == HOSTILE
    assert HOSTILE not in page


def test_a_study_without_trials_has_a_page(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        store.join(study_record(name="new"))
        write_report(store, str(tmp_path / "s.sqlite"), "new", tmp_path / "new.html")
        with pytest.raises(ExportError, match="could not be written"):
            write_report(store, str(tmp_path / "s.sqlite"), "new", tmp_path / "no" / "new.html")
    assert "0 on the front" in (tmp_path / "new.html").read_text(encoding="utf-8")
