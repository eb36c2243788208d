from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.head import Head, running_head
from tests.story.small import Command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, run in this process."""
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster of one node, whose head was started with a store in its environment."""
    with running_head(tmp_path_factory.mktemp("head")) as started:
        yield started
