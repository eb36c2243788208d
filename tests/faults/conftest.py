from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from rank_search.store import Store
from tests.faults.case import LONG, Case, write_case
from tests.faults.line import Line
from tests.faults.nodes import Node
from tests.store.postgres import Server, programs_or_skip
from tests.story.forks import Forks

Launch = Mapping[str, Any]
"""The `[launch]` table of a study file."""


class MakeCase(Protocol):
    def __call__(self, launch: Launch, line: Line | None = None, **changes: dict[str, Any]) -> Case: ...


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server that tests may stop; each leaves it running."""
    with Server(programs_or_skip(), tcp=True) as running:
        yield running


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with Forks(tmp_path_factory.mktemp("printed")) as started:
            yield started


@pytest.fixture(scope="session")
def head() -> Iterator[Node]:
    """A Ray cluster with room for three workers."""
    folder = Path(tempfile.mkdtemp(prefix="rs-ray-", dir="/tmp"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")
            with Node(folder, cpus=3) as running:
                yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["local", "ray"])
def launch(request: pytest.FixtureRequest) -> Launch:
    """Two workers on this machine, or on the cluster."""
    if request.param == "local":
        return {"workers": 2}
    return on_ray(request.getfixturevalue("head"))


def on_ray(head: Node) -> Launch:
    return {"with": "ray", "address": head.address, "workers": 2}


@pytest.fixture
def new_case(forks: Forks, server: Server, tmp_path: Path) -> Iterator[MakeCase]:
    """Makes a study in a new database of its own; `line` is the way that the driver takes to it."""
    with ExitStack() as stack:

        def make(launch: Launch, line: Line | None = None, **changes: dict[str, Any]) -> Case:
            url = server.create_database()
            way = url if line is None else url.replace(f":{server.port}/", f":{line.port}/")
            small = write_case(tmp_path / "study", way, launch, **changes)
            store = stack.enter_context(Store.open(url, create=True, patience=LONG))
            case = Case(forks, small, url, store)
            stack.callback(case.end_all)
            return case

        yield make
