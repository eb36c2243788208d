"""The display of a run: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from rank_search.cli.progress import ProgressDisplay
from rank_search.observe import SearchProgress, logs
from rank_search.point import Objective, State
from rank_search.store import NEVER, StudyRecord, TrialRow

Capture = pytest.CaptureFixture[str]

STUDY = StudyRecord(
    name="[bold]mine[/bold] :smile:",
    fingerprint={},
    space={},
    objectives=(Objective("error"), Objective("macs")),
    reference_point={"error": 0.1, "macs": 1000.0},
    ideal={"error": 0.0, "macs": 0.0},
    dense={"error": 0.02, "macs": 1000.0},
    budget=1.0,
)


def member(number: int, **measured: float) -> TrialRow:
    return TrialRow(
        id=number,
        number=number,
        state=State.COMPLETE,
        measurements=measured,
        losses=measured,
        budget=1.0,
        rng_seed=0,
        worker="",
        attempt=1,
        started=NEVER,
        finished=NEVER,
        reason="",
        dominated_by=None,
        artifacts=(),
        earlier={},
        point_json="{}",
        sampler_json="{}",
    )


def progress(
    states: Mapping[State, int], front: tuple[TrialRow, ...] = (), target: int = 9, left: float | None = None
) -> SearchProgress:
    return SearchProgress(
        study=STUDY,
        target=target,
        states=states,
        in_flight=1,
        elsewhere=0,
        workers=1,
        front=front,
        hypervolume=0.25,
        seconds=61.4,
        seconds_left=left,
        rate=None,
    )


def shown(capsys: Capture, *reports: SearchProgress) -> str:
    with ProgressDisplay() as display:
        for report in reports:
            display(report)
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)


def test_lines_without_a_terminal(capsys: Capture) -> None:
    states = {State.COMPLETE: 6, State.INFEASIBLE: 3, State.FAILED: 0}
    front = (member(1, error=0.01, macs=500.0), member(2, error=0.02, macs=250.0))
    assert shown(capsys, progress(states, front, left=3725.0)) == (
        "9/9 trials (6 complete, 3 infeasible) · front 2 · hypervolume 0.2500 · 1:01 · left 1:02:05\n"
    )
    assert shown(capsys, progress({}, target=3)).startswith("0/3 trials (none yet) · front 0")


@pytest.mark.parametrize(
    ("workers", "in_flight", "elsewhere", "said"),
    [
        (12, 8, 0, "12 workers · 8 in flight"),
        (12, 8, 3, "12 workers · 8 in flight, 3 elsewhere"),
        (1, 1, 3, "1 worker · 1 in flight, 3 elsewhere"),
        (0, 2, 0, "no workers · 2 in flight"),
    ],
)
def test_progress_names_the_workers(capsys: Capture, workers: int, in_flight: int, elsewhere: int, said: str) -> None:
    alone = progress({State.COMPLETE: 4, State.STOPPED: 5})
    crowd = replace(alone, workers=workers, in_flight=in_flight, elsewhere=elsewhere, rate=12.345)
    assert shown(capsys, crowd) == (
        f"9/9 trials (4 complete, 5 stopped) · front 0 · hypervolume 0.2500 · {said} · 12.35 a minute · 1:01 · left ?\n"
    )


@pytest.mark.usefixtures("_terminal")
def test_progress_on_a_terminal_names_the_workers(capsys: Capture) -> None:
    crowd = replace(progress({State.STOPPED: 4}), workers=12, in_flight=8, elsewhere=3, rate=0.5)
    out = " ".join(shown(capsys, crowd).split())
    assert "(4 stopped)" in out
    assert "12 workers · 8 in flight, 3 elsewhere · 0.5 a minute" in out


@pytest.mark.usefixtures("_terminal")
def test_warnings_appear_above_the_table(capsys: Capture) -> None:
    with logs.configure(), ProgressDisplay() as display:
        display(progress({State.COMPLETE: 1}))
        logs.worker_died("there:2", "[red]killed[/red]")
    out = capsys.readouterr().err
    assert out.count("worker died · worker there:2 · reason [red]killed[/red]") == 1
    assert out.index("worker died") < out.rindex("1/9 trials")


def test_progress_counts_the_models_left_to_test(capsys: Capture) -> None:
    over = progress({State.COMPLETE: 9})
    lines = shown(capsys, replace(over, untested=12), replace(over, untested=11), over).splitlines()
    assert [line.rpartition(" · ")[2] for line in lines] == ["12 of the front to be tested", "left ?"]


def test_few_lines_and_always_the_last(capsys: Capture) -> None:
    reports = [progress({State.COMPLETE: count}) for count in range(10)]
    assert [line.split("/")[0] for line in shown(capsys, *reports).splitlines()] == ["0", "9"]


@pytest.mark.usefixtures("_terminal")
def test_a_table_on_a_terminal(capsys: Capture) -> None:
    front = tuple(member(number, error=0.01 * number, macs=1000 / 2**number) for number in range(15))
    out = shown(capsys, progress({State.COMPLETE: 4}, front, left=10.0))
    assert "[bold]mine[/bold] :smile:: 4/9 trials (4 complete) · front 15" in out
    assert "left 0:10" in out
    assert "dense / macs" in out
    assert "2,048×" in out
    assert "and 3 more" in out
    assert "–" in out  # nothing is a multiple of an error of zero


@pytest.mark.usefixtures("_terminal")
def test_a_terminal_is_left_as_it_was(capsys: Capture) -> None:
    out = shown(capsys, progress({}))
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") == 1
