"""Structured logs: fields on every event, a line for people, JSON for programs, and never a credential."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console
from rich.live import Live

from rank_search.errors import RankSearchError
from rank_search.observe import logs

Capture = pytest.CaptureFixture[str]
SECRET = "hunter2"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Logging configured into this file, for the test."""
    path = tmp_path / "new folder" / "log.jsonl"
    with logs.configure(path):
        yield path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fields(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("timestamp", "level", "logger")}


# ---- fields ------------------------------------------------------------------------------------------------


def test_every_event_has_its_fields(file: Path) -> None:
    with logs.bound(study="digits", worker="here:1"):
        logs.study_joined("digits.sqlite", target=9, finished=2)
        logs.trial_started(3, budget=1.0, worker="there:2")
        logs.trial_finished(3, "failed", 1.23456, reason="it raised", worker="there:2")
        logs.trial_retried(4, "its worker died", attempt=2, worker="there:3")
        logs.trial_promoted(5, 9.0)
        logs.claim_taken_over(6, "elsewhere:7", attempt=3)
        logs.worker_started("there:2")
        logs.worker_died("there:2", "exit code -9")
        logs.artifacts_unwritable("s3://bucket", "it is full")
        logs.driver_done(complete=True, recorded=7, seconds=60.0)
    run = {"study": "digits", "worker": "here:1"}
    there = run | {"worker": "there:2"}
    failed = {"state": "failed", "seconds": 1.235, "reason": "it raised"}
    assert [fields(record) for record in records(file)] == [
        {"event": "study joined", **run, "store": "digits.sqlite", "target": 9, "finished": 2},
        {"event": "trial started", **there, "trial": 3, "attempt": 1, "budget": 1.0},
        {"event": "trial finished", **there, "trial": 3, "attempt": 1, **failed},
        {"event": "trial retried", **run, "worker": "there:3", "trial": 4, "attempt": 2, "reason": "its worker died"},
        {"event": "trial promoted", **run, "trial": 5, "budget": 9.0},
        {"event": "claim taken over", **run, "trial": 6, "attempt": 3, "holder": "elsewhere:7"},
        {"event": "worker started", **there},
        {"event": "worker died", **there, "reason": "exit code -9"},
        {"event": "artifacts unwritable", **run, "location": "s3://bucket", "reason": "it is full"},
        {"event": "driver done", **run, "complete": True, "recorded": 7, "seconds": 60.0},
    ]


@pytest.mark.parametrize("kind", ["logging", "structlog"])
def test_library_loggers_get_the_fields(file: Path, capsys: Capture, kind: str) -> None:
    name = f"rank_search.some.{kind}"
    log: Any = logging.getLogger(name) if kind == "logging" else structlog.get_logger(name)
    with logs.bound(study="digits", worker="here:1"), logs.trial_context(4, 2):
        log.warning("The cache %s is damaged.", "spectra")
        log.info("Nothing new.")
        log.debug("Not worth a line.")
    where = {"study": "digits", "trial": 4, "attempt": 2, "worker": "here:1"}
    assert [(fields(record), record["level"], record["logger"]) for record in records(file)] == [
        ({"event": "The cache spectra is damaged.", **where}, "warning", name),
        ({"event": "Nothing new.", **where}, "info", name),
    ]
    (line,) = capsys.readouterr().err.splitlines()
    assert line[8:] == " warning: The cache spectra is damaged. · study digits · trial 4 · attempt 2 · worker here:1"


def test_fields_end_with_what_they_belong_to(file: Path) -> None:
    with logs.bound(study="digits", worker="here:1"):
        with logs.trial_context(4, 2):
            pass
        logs.artifacts_unwritable("here", "")
    logs.artifacts_unwritable("here", "")
    assert [set(fields(record)) for record in records(file)] == [
        {"event", "study", "worker", "location", "reason"},
        {"event", "location", "reason"},
    ]


def test_a_thread_is_given_the_fields(file: Path) -> None:
    with logs.bound(study="digits", worker="here:1"):
        for target in (logs.carried(lambda: logs.trial_promoted(3, 1.0)), lambda: logs.trial_promoted(3, 2.0)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert [record.get("study") for record in records(file)] == ["digits", None]


def test_bind_holds_from_then_on(file: Path) -> None:
    def worker() -> None:
        logs.bind(study="digits")
        logs.bind(worker="there:2")
        with logs.trial_context(1, 1):
            logging.getLogger("rank_search.trials").warning("odd")

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert fields(records(file)[0]) == {
        "event": "odd",
        "study": "digits",
        "worker": "there:2",
        "trial": 1,
        "attempt": 1,
    }


# ---- where it goes -----------------------------------------------------------------------------------------


def test_people_get_one_line_and_the_traceback_below(file: Path, capsys: Capture) -> None:
    logs.worker_died("there:2", "killed\nby the \x1b[31mkernel")
    try:
        raise ValueError("of the user's\ntask")
    except ValueError:
        logging.getLogger("rank_search.trials").warning("The trial failed.", exc_info=True)
    first, second, *trace = capsys.readouterr().err.splitlines()
    assert first.endswith(" warning: worker died · worker there:2 · reason killed by the �[31mkernel")
    assert second.endswith(" warning: The trial failed.")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-2:] == ["ValueError: of the user's", "task"]
    assert records(file)[1]["exception"].endswith("ValueError: of the user's\ntask")


def test_a_live_display_stays_whole(capsys: Capture) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, color_system=None)
    with logs.configure(), Live("the display", console=console, auto_refresh=False):
        logs.worker_died("there:2", "[bold]gone[/bold]")
    shown = stream.getvalue()
    assert "reason \n[bold]gone[/bold]" in shown or "reason [bold]gone[/bold]" in shown
    assert shown.index("worker died") < shown.rindex("the display")
    assert capsys.readouterr().err == ""


def test_more_for_people_on_demand(capsys: Capture) -> None:
    with logs.configure(level="INFO"):
        logs.worker_started("there:2")
    with logs.configure():
        logs.worker_started("there:3")
    assert "there:2" in (err := capsys.readouterr().err)
    assert "there:3" not in err


def test_configured_again_and_back(tmp_path: Path, capsys: Capture) -> None:
    library, before = logging.getLogger("rank_search"), structlog.get_config()
    handlers, level = list(library.handlers), library.level
    first = logs.configure(tmp_path / "first")
    second = logs.configure(tmp_path / "second")
    logs.artifacts_unwritable("here", "")
    second.close()
    first.close()
    assert (tmp_path / "first").read_text() == ""
    assert len(records(tmp_path / "second")) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert (library.handlers, library.level, structlog.get_config()) == (handlers, level, before)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = list(logging.getLogger("rank_search").handlers)
    for path in (tmp_path, tmp_path / "file" / "log"):
        with pytest.raises(RankSearchError, match="cannot be written"):
            logs.configure(path)
    assert logging.getLogger("rank_search").handlers == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_a_full_disk_does_not_end_the_run(capsys: Capture) -> None:
    with logs.configure("/dev/full"):
        for _ in range(3):
            logs.worker_started("there:2")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("warning: The log file /dev/full ends here: No space left on device.")


def _write_many(path: Path, worker: str) -> None:
    with logs.configure(path, level="CRITICAL"):
        for number in range(50):
            logs.trial_finished(number, "complete", 1.0, reason=worker * 2000, worker=worker)


def test_processes_share_a_file(tmp_path: Path) -> None:
    context, path = multiprocessing.get_context("fork"), tmp_path / "log"
    processes = [context.Process(target=_write_many, args=(path, str(name))) for name in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [(record["worker"], record["trial"], len(record["reason"])) for record in records(path)]
    assert sorted(found) == [(str(name), number, 2000) for name in range(3) for number in range(50)]


def test_without_configuration_the_application_decides(caplog: pytest.LogCaptureFixture, capsys: Capture) -> None:
    with logs.bound(study="digits", worker="here:1"), caplog.at_level(logging.INFO, "rank_search"):
        logs.trial_finished(3, "complete", 1.5)
    (record,) = caplog.records
    assert record.getMessage() == "trial finished"
    assert (record.study, record.trial, record.state, record.seconds) == ("digits", 3, "complete", 1.5)  # type: ignore[attr-defined]
    assert capsys.readouterr() == ("", "")


def test_nothing_is_configured_by_an_import() -> None:
    code = (
        "import logging, structlog, rank_search.observe.logs as logs\n"
        "logs.worker_died('w', 'gone')\n"
        "library = logging.getLogger('rank_search')\n"
        "print([type(each).__name__ for each in library.handlers], library.level, logging.root.handlers, "
        "structlog.is_configured())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout.strip(), result.stderr) == ("['NullHandler'] 0 [] False", "")


def test_a_query_does_not_import_structlog(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['rank-search', 'front', 'none', 'x']; from rank_search.cli import main; main()"
    result = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, cwd=tmp_path)
    assert result.returncode == 2
    assert b"rank_search.store" in result.stderr
    assert b"structlog" not in result.stderr


# ---- credentials -------------------------------------------------------------------------------------------


URL = f"postgresql://me:{SECRET}@host/db"


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        (f"{URL} is away", {}),
        ("away", {"store": URL}),
        ("away", {"deep": {"list": [{"tuple": (1, f"host=x password={SECRET}")}]}}),
        ("away", {"password": SECRET}),
        ("away", {"connection": {"user": "me", "db_password": 1, "secrets": [SECRET]}}),
        ("away", {"odd": RuntimeError(URL)}),
        ("away", {"odd": URL.encode()}),
        ("away", {"odd": {URL: 1}}),
    ],
)
def test_no_credential_anywhere_in_a_record(file: Path, capsys: Capture, message: str, extra: dict[str, Any]) -> None:
    for log in (logging.getLogger("rank_search.x"), structlog.get_logger("rank_search.y")):
        try:
            raise ConnectionError(f"cannot reach {URL}")
        except ConnectionError:
            if isinstance(log, logging.Logger):
                log.exception(message, extra=extra)
            else:
                log.exception(message, **extra)
    err, written = capsys.readouterr().err, file.read_text()
    assert err.count("ConnectionError: cannot reach postgresql://me:***@host/db") == 2
    assert len(records(file)) == 2
    assert SECRET not in err + written


def test_odd_values_stay_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest would put what is not UTF-8 into its report, which a worker of pytest-xdist could not send
    monkeypatch.setattr(logging.getLogger("rank_search"), "propagate", False)
    odd = {"nan": float("nan"), "infinite": float("inf"), "path": Path("x"), "many": {1: (None, True, 2.5)}}
    logging.getLogger("rank_search.x").info("odd \ud800", extra=odd)
    (record,) = records(file)
    assert {name: record[name] for name in odd} == {
        "nan": "nan",
        "infinite": "inf",
        "path": "x",
        "many": {"1": [None, True, 2.5]},
    }
