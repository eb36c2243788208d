"""`rank-search status`: what is going on in a study, from its store alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from sqlalchemy import update
from typer.testing import CliRunner

from rank_search.artifacts import Recoveries, artifacts_at
from rank_search.cli import status_verb
from rank_search.errors import QueryError, StoreAwayError
from rank_search.observe import DriverStatus, Status, status_of
from rank_search.pareto import ReferenceBox
from rank_search.point import Execution, Outcome, State
from rank_search.store import NEVER, Activity, Claim, Store, StudyRecord, artifact_folder, tables
from tests.store.store_tools import a_point, a_record

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)
APP = typer.Typer(rich_markup_mode=None)
APP.callback()(lambda: None)
status_verb.add_to(APP)


def held(number: int, worker: str, heard: float, **changes: Any) -> Claim:
    """A claim that was made five minutes ago, and heard of so many seconds ago."""
    claim = Claim(
        number,
        a_point(number + 1000),
        worker,
        attempt=1,
        started=NOW - timedelta(minutes=5),
        budget=2.0,
        heartbeat=NOW - timedelta(seconds=heard),
    )
    return replace(claim, **changes)


def activity(*claims: Claim, finished: int = 0, **changes: Any) -> Activity:
    trials = {State.COMPLETE: 6, State.STOPPED: 2}
    return replace(Activity(trials, claims, finished, {"here:1": finished}, NOW - timedelta(seconds=61)), **changes)


def status(*claims: Claim, target: int | None = 20, finished: int = 0, **changes: Any) -> Status:
    study = a_record(target=target)
    return Status(study, NOW, TEN_MINUTES, activity(*claims, finished=finished, **changes), 3, 0.25)


# ---- what it means -----------------------------------------------------------------------------------------


def test_rate_and_time_left() -> None:
    found = status(finished=5, by_worker={"here:2": 4, "here:1": 1})
    assert found.finished == 8
    assert found.rate == 0.5
    assert found.seconds_left == (20 - 8) / 0.5 * 60
    assert dict(found.rates) == {"here:1": 0.1, "here:2": 0.4}


@pytest.mark.parametrize(
    ("target", "finished", "left"), [(None, 5, None), (20, 0, None), (8, 0, 0.0), (8, 5, 0.0), (5, 5, 0.0)]
)
def test_time_left_at_the_edges(target: int | None, finished: int, left: float | None) -> None:
    assert status(target=target, finished=finished).seconds_left == left


def test_complete_means_that_nothing_is_in_flight() -> None:
    assert status(target=8).complete
    assert not status(held(9, "here:1", 1), target=8).complete
    assert not status(target=9).complete
    assert not status(target=None).complete


def test_drivers_are_alive_or_silent() -> None:
    claims = [held(1, "b:2", 100), held(2, "a:1", 91), held(3, "b:2", 30), held(4, "", 0, heartbeat=NEVER)]
    found = status(*claims)
    assert found.drivers == [
        DriverStatus("a:1", 1, NOW - timedelta(seconds=91), alive=False),
        DriverStatus("b:2", 2, NOW - timedelta(seconds=30), alive=True),
    ]
    assert [claim.number for claim in found.given_up] == [4]


def test_clocks_that_differ() -> None:
    found = status(held(1, "b:2", -5))
    assert found.seconds_since(NOW + timedelta(seconds=5)) == 0
    assert found.seconds_since(NEVER) is found.seconds_since(None) is None
    assert found.drivers[0].alive


# ---- from a store ------------------------------------------------------------------------------------------


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "store.sqlite")


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with Store.open(where, create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    """Two trials of worker `there:7`, one of `there:8` an hour ago; one in flight, and one given up."""
    study = store.join(a_record(name="[b]mine[/b]"))
    store.set_target(study, 12)
    for worker, a, b, ago in (("there:8", 1.0, 1.0, 60), ("there:7", 0.0, 2.0, 0), ("there:7", 2.0, 3.0, 0)):
        record(store, study, Outcome(State.COMPLETE, {"a": a, "b": b}), worker, ago)
    assert store.claim(study, a_point(), "driver:1", budget=1.0)
    claim = store.claim(study, a_point(), "driver:2")
    assert claim is not None
    store.release(study, [claim])
    return store.study(study.name)


def record(store: Store, study: StudyRecord, outcome: Outcome, worker: str, minutes_ago: float) -> None:
    claim = store.claim(study, a_point(), "driver:1")
    assert claim is not None
    moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    store.record(study, claim, outcome, Execution(1, moment, moment, worker))


def test_look(store: Store, study: StudyRecord) -> None:
    found = status_of(store, study.name, TEN_MINUTES)
    assert found.study.target == 12
    assert found.activity.trials == {State.COMPLETE: 3}
    assert dict(found.activity.by_worker) == {"there:7": 2}
    assert [(claim.number, claim.worker) for claim in found.activity.claims] == [(3, "driver:1"), (4, "")]
    assert found.on_front == 2
    assert found.hypervolume == ReferenceBox((-10.0, -10.0), (10.0, 10.0)).hypervolume([[1.0, 1.0], [0.0, 2.0]])
    with pytest.raises(QueryError):
        status_of(store, "none", TEN_MINUTES)


def test_rates_of_a_young_study_are_over_its_age(store: Store, study: StudyRecord) -> None:
    assert status_of(store, study.name, TEN_MINUTES).period < timedelta(minutes=5)
    assert status_of(store, study.name, timedelta(seconds=0.5)).period == timedelta(seconds=0.5)


def test_a_complete_study_keeps_its_rate(store: Store) -> None:
    study = store.join(a_record())
    store.set_target(study, 2)
    for minutes_ago in (70, 60):
        record(store, study, Outcome(State.COMPLETE, {"a": 1.0, "b": 1.0}), "there:7", minutes_ago)
    execute(store, study, datetime.now(UTC) - timedelta(minutes=90))
    found = status_of(store, study.name, timedelta(minutes=15))
    assert found.complete
    assert (found.period, found.rate) == (timedelta(minutes=15), 2 / 15)
    assert dict(found.rates) == {"there:7": 2 / 15}
    store.set_target(study, 3)  # it is to go on, and nobody does
    assert status_of(store, study.name, timedelta(minutes=15)).rate == 0


def execute(store: Store, study: StudyRecord, created: datetime) -> None:
    """Make the study older."""
    change = update(tables.study).where(tables.study.c.id == study.id).values(created=created)
    store._database.write(lambda connection: connection.execute(change))


def test_nothing_yet(store: Store) -> None:
    study = store.join(a_record())
    found = status_of(store, study.name, TEN_MINUTES)
    assert (found.finished, found.on_front, found.hypervolume, found.rate) == (0, 0, 0.0, 0.0)
    assert found.seconds_left is None
    assert not found.complete


# ---- the verb ----------------------------------------------------------------------------------------------


def shown(where: str, study: StudyRecord, *options: str) -> str:
    result = CliRunner().invoke(APP, ["status", where, study.name, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_json(where: str, study: StudyRecord) -> None:
    summary, driver, claim, given_up, worker = json.loads(shown(where, study, "--format", "json"))
    assert summary.pop("trials_a_minute") > 0
    assert summary.pop("seconds_left") > 0
    assert datetime.fromisoformat(summary.pop("last_finished")) > NOW - timedelta(days=1000)
    assert summary == {
        "study": "[b]mine[/b]",
        "trials": {"complete": 3},
        "finished": 3,
        "target": 12,
        "complete": False,
        "in_flight": 2,
        "on_front": 2,
        "hypervolume": pytest.approx(ReferenceBox((-10.0, -10.0), (10.0, 10.0)).hypervolume([[1, 1], [0, 2]])),
    }
    assert 0 <= driver.pop("heard_of") < 60
    assert driver == {"driver": "driver:1", "alive": "alive", "holds": 1}
    assert 0 <= claim.pop("heartbeat") <= claim.pop("age") < 60
    assert claim == {"trial": 3, "held_by": "driver:1", "attempt": 1, "budget": 1.0, "goes_on_from": None}
    assert (given_up["trial"], given_up["held_by"], given_up["heartbeat"]) == (4, "nobody: given up", None)
    assert worker.pop("trials_a_minute") > 0
    assert worker == {"worker": "there:7", "finished": 2}


def test_it_says_from_where_trials_go_on(where: str, store: Store, study: StudyRecord) -> None:
    running, given_up = store.claims(study)
    artifacts = artifacts_at(study.artifacts, artifact_folder(where, study.folder))
    for epochs in (84.25, 12.5):
        Recoveries(artifacts, running.point.key, "mark").keep(str(epochs).encode(), 1, epochs)
    assert status_of(store, study.name, TEN_MINUTES).goes_on_from == {running.number: 84.25}
    _, _, *claims, _ = json.loads(shown(where, study, "--format", "json"))
    assert [(each["trial"], each["goes_on_from"]) for each in claims] == [(3, 84.25), (given_up.number, None)]
    assert "84.25" in shown(where, study)


def test_a_place_for_files_that_is_away_is_no_trouble(where: str, store: Store, study: StudyRecord) -> None:
    update_artifacts = update(tables.study).where(tables.study.c.id == study.id).values(artifacts="nowhere://bucket/x")
    store._database.write(lambda connection: connection.execute(update_artifacts))
    assert status_of(store, study.name, TEN_MINUTES).goes_on_from == {}


def test_csv_has_the_same_rows(where: str, study: StudyRecord) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(where, study, "--format", "csv"))))
    assert len(rows) == 5
    assert rows[0]["trials.complete"] == "3"
    assert [row["trial"] for row in rows] == ["", "", "3", "4", ""]


def test_tables(where: str, study: StudyRecord) -> None:
    printed = " ".join(shown(where, study).split())
    assert "status of [b]mine[/b]" in printed
    assert "│ trials │ 3 of 12 (3 complete) │" in printed
    assert "│ driver:1 │ alive │ 1 │" in printed
    assert "│ nobody: given up │" in printed
    assert "│ there:7 │ 2 │" in printed


def test_tables_of_a_complete_study(where: str, store: Store) -> None:
    study = store.join(a_record())
    store.set_target(study, 1)
    record(store, study, Outcome(State.DIVERGED, reason="x"), "there:7", 0)
    printed = shown(where, study)
    assert "│ 1 of 1 (1 diverged): complete │" in " ".join(printed.split())
    assert "trials in flight: none" in printed
    assert "drivers: none" in printed


def test_watch_is_for_people(where: str, study: StudyRecord) -> None:
    result = CliRunner().invoke(APP, ["status", where, study.name, "--watch", "--format", "json"])
    assert result.exit_code == 2
    assert "Leave --format out" in result.output


def test_it_imports_neither_torch_nor_optuna(where: str, study: StudyRecord) -> None:
    code = (
        "import sys, typer; from rank_search.cli import status_verb\n"
        "app = typer.Typer(); status_verb.add_to(app); app(sys.argv[1:], standalone_mode=False)\n"
        "print([name for name in ('torch', 'optuna', 'ray', 'structlog', 'scipy', 'alembic') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, where, study.name], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


# ---- watching ----------------------------------------------------------------------------------------------


class _Breaks:
    """A store that is away for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = False
        monkeypatch.setattr("rank_search.observe.status.status_of", self.status_of)

    def status_of(self, *arguments: Any) -> Status:
        if self.away:
            raise StoreAwayError("The server is restarting.")
        return status_of(*arguments)


def rendered(watched: status_verb._Watched) -> str:
    console = Console(file=io.StringIO(), markup=False, emoji=False, width=200)
    console.print(watched.picture())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_watching_goes_on_while_the_store_is_away(
    where: str, store: Store, study: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = _Breaks(monkeypatch)
    watched = status_verb._Watched(where, study.name, TEN_MINUTES)
    server.away = True
    first = rendered(watched)
    assert "The store is away since" in first
    assert "The server is restarting." in first
    server.away = False
    assert "3 of 12" in (before := rendered(watched))
    assert "away" not in before
    server.away = True
    during = rendered(watched)
    assert "3 of 12" in during
    assert "away since" in during
    record(store, study, Outcome(State.FAILED, reason="x"), "there:9", 0)
    server.away = False
    after = rendered(watched)
    assert "4 of 12 (3 complete, 1 failed)" in after
    assert "there:9" in after
    assert "away" not in after
    watched.close()


def test_watching_shows_the_first_of_many(where: str, store: Store, study: StudyRecord) -> None:
    for _ in range(30):
        assert store.claim(study, a_point(), "driver:1")
    watched = status_verb._Watched(where, study.name, TEN_MINUTES)
    assert "and 12 more" in rendered(watched)
    watched.close()


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_ends_with_an_interrupt(
    where: str, study: StudyRecord, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter(range(3))

    def sleep(seconds: float) -> None:
        assert seconds == 2
        if next(pauses, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(status_verb.time, "sleep", sleep)
    if terminal:
        for name, value in {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
            monkeypatch.setenv(name, value)
    printed = shown(where, study, "--watch")
    assert printed.count("3 of 12 (3 complete) ") == 4 + terminal  # a live display leaves what it showed last
    assert printed.count("\x1b[?25l") == printed.count("\x1b[?25h") == int(terminal)
