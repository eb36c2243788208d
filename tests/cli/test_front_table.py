"""The front as people see it: dense first, objectives before the rest, whole numbers in 80 columns."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rank_search.basics import number
from rank_search.cli import front_table
from rank_search.cli.main import app
from rank_search.errors import ExportError
from rank_search.figures import drawn_panels, in_terminal
from rank_search.point import Objective, Outcome, State
from rank_search.store import EXAMPLES, Store
from tests.store.store_tools import a_record, complete, finish

DENSE = {"error": 0.04, "macs": 40_000_000.0, "bits": 9e6, "params": 270_000.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("table") / "s.sqlite"
    objectives = (Objective("error"), Objective("macs"), Objective("bits"))
    corners = {"reference_point": {"error": 0.14, "macs": 4e7, "bits": 9e6}, "ideal": dict.fromkeys(DENSE, 0.0)}
    record = a_record(name="s", objectives=objectives, dense=DENSE, space={EXAMPLES: 1000}, **corners)
    with Store.open(where, create=True) as store:
        study = store.join(record)
        for k in range(1, 8):
            measured = {
                "params": 2e5,
                "a_long_one": 123_456_789.0,
                "another_long_one": 0.123456,
                "third": 0.5,
                "nonzeros": 1e5,
            }
            finish(
                store, study, complete(error=0.04 + k / 100, macs=123_456_789 / 2**k, bits=8_765_432.0 - k, **measured)
            )
        bare = a_record(name="bare", objectives=objectives, dense=DENSE, **corners)
        finish(store, store.join(bare), Outcome(State.INFEASIBLE, {"macs": 1.0}, "macs <= 0.5 * dense does not hold"))
    return where


def run(*arguments: object) -> str:
    answer = CliRunner().invoke(app, [str(each) for each in arguments])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_the_dense_model_comes_first_with_ratios_and_error_bars(path: Path) -> None:
    lines = [line for line in run("front", path, "s").splitlines() if "│" in line]
    assert [cell.strip() for cell in lines[0].split("│")][1:3] == ["dense", "0.04 ± 0.012"]
    assert "3.07" not in lines[0]
    ratios = [float(cell) for cell in re.findall(r"([\d.]+)×", lines[-1])]
    assert ratios[0] == pytest.approx(40e6 / (123_456_789 / 128), rel=1e-3)


def test_no_number_is_broken_in_eighty_columns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_table, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("front", path, "s")
    assert max(map(len, shown.splitlines())) <= 80
    for k in range(1, 8):
        assert number(123_456_789 / 2**k) in shown
    assert "too wide for" in shown
    assert "--format csv has all" in " ".join(shown.split())
    assert shown.index("error") < shown.index("macs")


def test_nonzeros_are_the_first_to_give_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = ["another_long_one", "a_long_one", "params", "third", "nonzeros"]
    shown = run("front", path, "s").replace("_ ", "_")
    assert all(shown.rindex(one) < shown.rindex("nonzeros") for one in ("params", "third"))
    monkeypatch.setattr(front_table, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "150")
    (hidden,) = re.findall(r"too wide for ([^:]*):", " ".join(run("front", path, "s").split()))
    assert hidden.split(", ")[0] == "nonzeros"
    assert not set(measured[:-1]) & set(hidden.split(", "))


def test_json_has_the_error_bars(path: Path) -> None:
    assert '"plus_minus"' in run("front", path, "s", "--format", "json")
    assert '"plus_minus"' in run("show", path, "s", 0, "--format", "json")
    assert "±" in run("show", path, "s", 0)


def test_the_smallest_within_one_point_of_dense(path: Path) -> None:
    assert '"trial": 1,' in run("front", path, "s", "--budget", "error <= dense + 2%", "--format", "json")
    assert '"trial": 3,' in run("front", path, "s", "--where", "macs <= dense / 5", "--limit", 1, "--format", "json")


def test_a_knee_says_why(path: Path) -> None:
    assert "is the knee of the 3 of 7 members with error at most 0.07333" in run("front", path, "s", "--knee")
    assert "of the 7 of 7 members" in run("front", path, "s", "--knee", "--tolerance", 1)


@pytest.mark.parametrize("verb", ["front", "compare", "plot", "report"])
def test_a_study_without_a_complete_trial_is_said_to_have_no_front(path: Path, tmp_path: Path, verb: str) -> None:
    rest = {"front": [], "compare": ["s"], "plot": ["-o", tmp_path / "x.svg"], "report": ["-o", tmp_path / "x.html"]}[
        verb
    ]
    said = run(verb, path, "bare", *rest)
    if verb == "report":
        said = (tmp_path / "x.html").read_text(encoding="utf-8").replace("&#39;", "'")
    assert "No trial of study 'bare' is complete, so it has no front (1 infeasible)" in said


def test_bounds_that_no_member_keeps_are_told_from_no_front(path: Path) -> None:
    assert "no trial of the front keeps these bounds" in run("front", path, "s", "--where", "error <= 0.001")


@pytest.mark.parametrize("name", ["x.svg", "x.html"])
def test_nothing_is_replaced_unasked(path: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_text("mine", encoding="utf-8")
    verb = "plot" if name == "x.svg" else "report"
    refused = CliRunner().invoke(app, [verb, str(path), "s", "-o", str(target)])
    assert isinstance(refused.exception, ExportError)
    assert "replace it with --overwrite" in str(refused.exception)
    assert target.read_text(encoding="utf-8") == "mine"
    run(verb, path, "s", "-o", target, "--overwrite")
    assert target.read_text(encoding="utf-8") != "mine"


def test_a_report_is_a_page(path: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["report", str(path), "s", "-o", str(tmp_path / "x.pdf")])
    assert "a report is an HTML page" in str(refused.exception)
    assert list(tmp_path.iterdir()) == []
    unknown = ["report", str(path), "s", "-o", str(tmp_path / "x.html"), "--reference", "he:eror=0.1"]
    assert "did you mean 'error'" in str(CliRunner().invoke(app, unknown).exception)
    assert list(tmp_path.iterdir()) == []


def test_an_axis_that_spans_decades_is_logarithmic(path: Path) -> None:
    with Store.open(path) as store:
        panel = drawn_panels(store, store.study("s"))[0]
    drawn = in_terminal(panel, 90, 24, color=False)
    columns = sorted({line.index("●") for line in drawn.splitlines() if "●" in line})
    steps = [right - left for left, right in itertools.pairwise(columns)]
    assert max(steps) - min(steps) <= 2, "each member has half the MACs of the one before"


def test_stdout_decides_whether_there_is_a_terminal() -> None:
    assert front_table._is_terminal() is sys.stdout.isatty()
