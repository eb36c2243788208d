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
from tests.story.forks import processes

pytestmark = pytest.mark.faults


def test_a_node_that_dies_takes_its_trial_and_nothing_else(new_case: MakeCase, head: Node, tmp_path: Path) -> None:
    one_a_node = {"with": "ray", "address": head.address, "workers": 2, "cpus_per_trial": 3, "threads": 1}
    case = new_case(one_a_node)
    with Node(tmp_path, cpus=3, address=head.address) as doomed:
        run = case.start()
        wait_for(lambda: len(case.training()) == 2)
        before, raylet = case.rows(), doomed.raylet
        (worker,) = [pid for pid in case.training() if parent(pid) == raylet]
        os.kill(raylet, signal.SIGKILL)
        case.assert_ends(run)
        assert worker not in processes()
    rows = case.assert_sound(before=before)
    assert sum(row.attempt - 1 for row in rows) == 1
    assert not [row for row in rows if row.state is State.FAILED]


def parent(pid: int) -> int:
    found = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(found.stdout)
