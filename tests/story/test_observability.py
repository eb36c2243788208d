"""What people see of a running study: the log of a run, the dashboard and the status, also on PostgreSQL."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rank_search.point import Execution, Outcome, State
from rank_search.search import Space
from rank_search.store import Claim, Store, StudyRecord
from tests.store.postgres import Server, programs_or_skip
from tests.store.store_tools import a_point, a_record
from tests.story.forks import Forks, wait_for
from tests.story.small import Command, write_study

SECRET = "hunter2/@: 'x"
PROGRAM = Path(sys.executable).with_name("rank-search")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server that asks for a password."""
    with Server(programs_or_skip(), password=SECRET) as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    return server.create_database()


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    with Forks(tmp_path) as running:
        yield running


def no_secret_in(text: str) -> bool:
    return "hunter2" not in text and quote(SECRET, safe="") not in text


@dataclass
class Study:
    """A study in a store, and what happens in it."""

    store: Store
    record: StudyRecord

    def claim(self, budget: float | None = None) -> Claim:
        sampler = {"coordinates": {"weakening": 0.5}, "label": "x"}
        claim = self.store.claim(self.record, a_point(), "driver:1", sampler, budget=budget)
        assert claim is not None
        return claim

    def finish(self, claim: Claim, state: State, **measured: float) -> None:
        now = datetime.now(UTC)
        outcome = Outcome(state, measured)
        self.store.record(self.record, claim, outcome, Execution(1, now, now, "there:7"))


@pytest.fixture
def study(url: str) -> Iterator[Study]:
    """A study on PostgreSQL with one trial; ten are wanted."""
    with Store.open(url, create=True, patience=60) as store:
        record = store.join(a_record(name="mine", space={"coordinates": Space(()).to_json()}))
        store.set_target(record, 10)
        begun = Study(store, record)
        begun.finish(begun.claim(), State.COMPLETE, a=1.0, b=2.0)
        yield begun


# ---- dashboard ---------------------------------------------------------------------------------------------


@contextmanager
def dashboard(url: str) -> Iterator[str]:
    """`rank-search dashboard` in a process of its own, until Ctrl-C; yields its address."""
    with subprocess.Popen([PROGRAM, "dashboard", url, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", line)
            assert found, line
            reader = threading.Thread(target=process.stderr.read, daemon=True)
            reader.start()
            yield found[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            reader.join()
        finally:
            process.kill()


def trials_shown(address: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{address}/api/studies") as answer:
        (study,) = json.load(answer)["study_summaries"]
    with urllib.request.urlopen(f"{address}/api/studies/{study['study_id']}") as answer:
        found: list[dict[str, Any]] = json.load(answer)["trials"]
    return found


def test_the_dashboard_follows_a_running_study(study: Study, url: str) -> None:
    with dashboard(url) as address:

        def shows(*states: str) -> bool:
            return [trial["state"] for trial in trials_shown(address)] == list(states)

        assert shows("Complete")
        stopped, running = study.claim(budget=1.0), study.claim()
        wait_for(lambda: shows("Complete", "Running", "Running"))
        study.finish(stopped, State.STOPPED, a=0.5, b=3.0)
        wait_for(lambda: shows("Complete", "Pruned", "Running"))
        promoted = study.store.promote(study.record, stopped.number, "driver:1", 2.0)
        assert promoted is not None
        study.finish(promoted, State.COMPLETE, a=0.25, b=3.0)
        study.finish(running, State.FAILED)
        wait_for(lambda: shows("Complete", "Complete", "Fail"))
        assert [trial["number"] for trial in trials_shown(address)] == [0, 1, 2]
        assert trials_shown(address)[1]["values"] == [0.25, 3.0]


def test_the_dashboard_survives_its_store(study: Study, url: str, server: Server) -> None:
    with dashboard(url) as address:
        server.stop("immediate")
        assert len(trials_shown(address)) == 1
        server.start()
        study.claim()
        wait_for(lambda: len(trials_shown(address)) == 2)


# ---- status ------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """`rank-search status --watch`, and what it has printed so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def printed(self) -> str:
        return "".join(self.lines)

    def shows(self, text: str) -> bool:
        """Whether it has shown that, and then forgets all it has printed."""
        assert self.process.poll() is None, self.printed
        if text not in self.printed:
            return False
        self.lines.clear()
        return True


@contextmanager
def watching(url: str, name: str) -> Iterator[Watch]:
    command = [PROGRAM, "status", url, name, "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watch = Watch(process)
        reader = threading.Thread(target=watch.read, daemon=True)
        reader.start()
        try:
            yield watch
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            reader.join()
        finally:
            process.kill()


def test_watching_survives_the_store(study: Study, url: str, server: Server) -> None:
    with watching(url, "mine") as watch:
        wait_for(lambda: watch.shows("1 of 10 (1 complete)"))
        server.stop("immediate")
        wait_for(lambda: "The store is away since" in watch.printed)
        assert no_secret_in(watch.printed)
        server.start()
        study.finish(study.claim(), State.STOPPED, a=1.0, b=3.0)
        wait_for(lambda: watch.shows("2 of 10 (1 complete, 1 stopped)"))


def test_status_on_postgresql(study: Study, url: str, command: Command) -> None:
    study.claim()
    summary, driver, claim, worker = command.fine("status", url, "mine", "--format", "json").json
    assert (summary["finished"], summary["target"], summary["in_flight"]) == (1, 10, 1)
    assert (driver["driver"], driver["alive"]) == ("driver:1", "alive")
    assert (claim["trial"], worker["worker"]) == (1, "there:7")


# ---- logs --------------------------------------------------------------------------------------------------


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_says_what_happens(tmp_path: Path, forks: Forks, command: Command, workers: int) -> None:
    small, log = write_study(tmp_path / "study", study={"trials": 5}), tmp_path / "logs" / "run.jsonl"
    run = forks.start("run", small.file, "--log", log, "--workers", workers)
    assert run.wait() == 0, run.printed
    told = records(log)
    events = [record["event"] for record in told]
    assert events[0] == "Reading the task"
    assert next(event for event in events if event.islower()) == "study joined"  # what is not a word for a wait
    assert events[-1] == "driver done"
    assert {record["study"] for record in told} == {"stripes"}
    assert all(record["worker"] for record in told)
    assert events.count("worker started") == (workers if workers > 1 else 0)
    recorded = command.fine("trials", small.store, "stripes", "--format", "json").json
    finished = {record["trial"]: record["state"] for record in told if record["event"] == "trial finished"}
    assert finished == {row["trial"]: row["state"] for row in recorded}
    assert told[-1]["recorded"] == 5
    assert told[-1]["complete"]


def test_a_failing_task_is_told_to_people_and_programs(tmp_path: Path, command: Command) -> None:
    small, log = write_study(tmp_path / "study", study={"trials": 3}, priors={"calibration": 0}), tmp_path / "run.jsonl"
    task = Path(small.folder / "stripes.py")
    task.write_text(
        task.read_text(encoding="utf-8").replace(
            "def task() -> rs.Supervised:\n    return rs.Supervised(",
            "class Fails(rs.Supervised):\n    count = 0\n\n    def loss(self, model, batch):\n"
            "        Fails.count += 1\n        if Fails.count > 2:\n            raise ValueError('no\\nmore')\n"
            "        return super().loss(model, batch)\n\n\ndef task() -> rs.Supervised:\n    return Fails(",
        ),
        encoding="utf-8",
    )
    answer = command("run", small.file, "--log", log)
    failed = [record for record in records(log) if record.get("state") == "failed"]
    assert failed
    assert all(record["level"] == "warning" and "no more" in record["reason"] for record in failed)
    assert len(
        re.findall(r"^\S+ warning: trial finished · study stripes · trial \d+ .* no more$", answer.err, re.M)
    ) == len(failed)
    traces = [record for record in records(log) if "exception" in record]
    assert {record["trial"] for record in traces} == {record["trial"] for record in failed}


def test_no_password_is_shown_by_a_run(
    tmp_path: Path, url: str, server: Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small, log = write_study(tmp_path / "study", study={"trials": 2}), tmp_path / "run.jsonl"
    shown = command.fine("run", small.file, "--store", url, "--log", log)
    for verb in ("studies", "trials", "front", "check", "status"):
        arguments = [verb, url] if verb == "studies" else [verb, url, "stripes"]
        for form in ("table", "json", "csv"):
            answer = command.fine(*arguments, "--format", form)
            assert no_secret_in(answer.out + answer.err)
    wrong = command("run", small.file, "--store", server.url("postgres", password="hunter2 wrong"), "--log", log)
    assert wrong.code == 2
    text = shown.out + shown.err + wrong.out + wrong.err + log.read_text(encoding="utf-8")
    assert no_secret_in(text)
    assert "hunter2%20wrong" not in text
