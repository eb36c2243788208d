"""The store's server crashes, or cannot be reached: the driver waits for it, and its trials with it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from rank_search.point import State
from tests.faults.case import wait_for
from tests.faults.conftest import Launch, MakeCase
from tests.faults.line import Line
from tests.faults.nodes import Node
from tests.store.postgres import Server

pytestmark = pytest.mark.faults

AWAY = 20.0  # seconds


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    with Line(server.port) as opened:
        yield opened


def test_a_server_that_crashes_again_and_again(new_case: MakeCase, server: Server, launch: Launch) -> None:
    case = new_case(launch, study={"trials": 24}, task={"options": {"pause": 0.02}})
    run = case.start()
    before = []
    for _ in range(6):
        before = case.wait_for_trials(len(before) + 2)
        server.restart("immediate")
    server.stop("immediate")
    try:
        wait_for(lambda: "Trying again" in run.printed)
    finally:
        server.start()
    case.assert_ends(run)
    rows = case.assert_sound(24, before)
    assert not [row for row in rows if row.state is State.FAILED]
    assert "is back after" in run.printed


@pytest.mark.parametrize("happens", ["cut", "fall_silent"])
def test_a_line_that_is_dead_for_a_while(new_case: MakeCase, head: Node, line: Line, happens: str) -> None:
    """A driver on Ray and a local one, with two workers each, both behind that line."""
    case = new_case({"workers": 2}, line, study={"trials": 24}, task={"options": {"pause": 0.1}})
    runs = [case.start("--on", "ray", "--address", head.address), case.start()]
    drivers = {run.pid for run in runs}
    wait_for(lambda: len(case.trainers().keys() - drivers) == 4 and bool(case.training()))
    getattr(line, happens)()
    before = case.rows()
    time.sleep(AWAY)
    assert len(case.rows()) <= len(before) + 1, "nobody comes through"
    line.mend()
    for run in runs:
        case.assert_ends(run)
        assert happens != "cut" or "is back after" in run.printed
    rows = case.assert_sound(24, before)
    assert not [row for row in rows if row.state is State.FAILED]


def test_patience_comes_to_an_end(new_case: MakeCase, line: Line) -> None:
    case = new_case({"workers": 2, "store_patience": 3.0}, line)
    run = case.start()
    before = case.wait_for_trials(3)
    line.cut()
    case.assert_ends(run, code=2)
    assert run.printed.count("\nrank-search: ") == 1
    assert "Traceback" not in run.printed
    wait_for(lambda: not case.training())
    line.mend()
    case.finish()
    case.assert_sound(before=before)
