"""A worker, a node or a driver is killed in the middle of a training, which goes on elsewhere from its checkpoint."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from rank_search.artifacts import Recovery
from rank_search.store import Store, TrialRow
from tests.faults.case import Case, wait_for, write_case
from tests.faults.conftest import Launch, MakeCase
from tests.faults.nodes import Node
from tests.faults.test_nodes import children
from tests.story.forks import Forks, Run

pytestmark = pytest.mark.faults

STUDY: Final[dict[str, dict[str, Any]]] = {"study": {"trials": 4}, "search": {"constraints": []}}  # its seed points
SLOWLY: Final = {"options": {"pause": 0.3}}
EVERY_STEP: Final = {"checkpoint_every": 1e-9}


def found(rows: list[TrialRow]) -> list[tuple[Any, ...]]:
    ordered = sorted(rows, key=lambda row: row.number)
    return [(row.number, row.point.key, row.state, dict(row.measurements), row.rng_seed) for row in ordered]


@pytest.fixture(scope="session")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What the study finds in one process that nothing happens to, without checkpoints."""
    folder = tmp_path_factory.mktemp("calm")
    url = f"sqlite:///{folder / 'calm.sqlite'}"
    small = write_case(folder, url, {"checkpoint_every": 0}, **STUDY, task={"options": {"pause": 0.0}})
    run = forks.start("run", small.file, folder=folder)
    assert run.wait() == 0, run.printed
    with Store.open(url) as store:
        return found(store.trials("stripes"))


def epochs(log: Path) -> list[float]:
    """From which epochs trials went on."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [line["epoch"] for line in lines if line["event"] == "trial goes on"]


def assert_went_on(case: Case, log: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    case.assert_sound(4)
    assert found(case.rows()) == undisturbed
    assert epochs(log)
    assert min(epochs(log)) > 0


def in_the_middle(case: Case, run: Run) -> list[int]:
    """The processes that train, if all are in the first half of a training and have left a checkpoint."""
    try:
        names = [path.name for path in case.files.iterdir()]
    except (ValueError, FileNotFoundError):  # there is no folder yet
        return []
    left = {each.point for name in names if (each := Recovery.named(name)) and 1 <= each.epochs <= 4}
    training = case.training(apart_from=[run.pid])
    return training if len(left) >= len(training) else []


def test_workers_and_their_driver(
    new_case: MakeCase, launch: Launch, undisturbed: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    case, log = new_case({**launch, **EVERY_STEP}, **STUDY, task=SLOWLY), tmp_path / "log.jsonl"
    run = case.start("--log", log)
    for pid in wait_for(lambda: in_the_middle(case, run)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: epochs(log))
    wait_for(lambda: in_the_middle(case, run))
    case.kill(run)
    before = len(epochs(log))
    case.finish("--log", log)
    assert len(epochs(log)) > before
    assert_went_on(case, log, undisturbed)


def test_a_node(new_case: MakeCase, head: Node, undisturbed: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """The other node goes on with what the lost one has left in the place that both see."""
    launch = {"with": "ray", "address": head.address, "workers": 2, "cpus_per_trial": 3, "threads": 1, **EVERY_STEP}
    case, log = new_case(launch, **STUDY, task=SLOWLY), tmp_path / "log.jsonl"
    with Node(tmp_path, cpus=3, address=head.address) as doomed:
        run = case.start("--log", log)
        wait_for(lambda: children(doomed.raylet) & set(in_the_middle(case, run)))
        os.kill(doomed.raylet, signal.SIGKILL)
        case.assert_ends(run)
    assert_went_on(case, log, undisturbed)
