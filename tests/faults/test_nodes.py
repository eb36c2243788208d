"""A whole node of a cluster dies, with its store of objects and the worker on it: the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from rank_search.point import State
from tests.faults.case import wait_for
from tests.faults.conftest import MakeCase
from tests.faults.nodes import Node

pytestmark = pytest.mark.faults


def test_a_node_that_dies_takes_its_trial_and_nothing_else(new_case: MakeCase, head: Node, tmp_path: Path) -> None:
    one_a_node = {"with": "ray", "address": head.address, "workers": 2, "cpus_per_trial": 3, "threads": 1}
    case = new_case(one_a_node, study={"trials": 8}, task={"options": {"pause": 0.15}})
    with Node(tmp_path, cpus=3, address=head.address) as doomed:
        run = case.start()
        raylet = doomed.raylet
        wait_for(lambda: bool(children(raylet) & set(case.training())))
        before = case.rows()
        os.kill(raylet, signal.SIGKILL)
        case.assert_ends(run)
    rows = case.assert_sound(8, before)
    assert sum(row.attempt - 1 for row in rows) == 1
    assert not [row for row in rows if row.state is State.FAILED]


def children(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return {child for child, parent in pairs if parent == pid}
