"""Following a job whose cluster comes and goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rank_search.errors import LaunchError
from rank_search.submit import SubmittedJob
from rank_search.submit.job import JobEnding

LOG = ["one\n", "two\nthr", "ee\n"]
ADDRESS = "http://head:8265"


class Cluster:
    """Breaks the connection to the log after so many chunks each time, and then tells how the job is."""

    def __init__(self, chunks: Sequence[int], statuses: Sequence[str], code: int | None = 0, message: str = "") -> None:
        self._chunks, self._statuses = list(chunks), list(statuses)
        self._code, self._message = code, message

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        count = self._chunks.pop(0)
        for chunk in LOG[:count]:
            yield chunk
        if count < len(LOG):
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_info(self, id: str) -> Any:
        if not self._statuses:
            raise ConnectionError("Connection refused")
        status = self._statuses.pop(0)
        state = SimpleNamespace(value=status, is_terminal=lambda: status not in ("PENDING", "RUNNING"))
        return SimpleNamespace(status=state, driver_exit_code=self._code, message=self._message)


def follow(cluster: Any) -> tuple[str, JobEnding]:
    shown: list[str] = []
    ending = SubmittedJob(cluster, ADDRESS, "raysubmit_1").follow(shown.append)
    return "".join(shown), ending


def test_a_broken_connection_is_made_again_and_nothing_is_shown_twice() -> None:
    shown, ending = follow(Cluster([0, 1, 2, 0, 3], ["PENDING", "RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"]))
    assert shown == "".join(LOG)
    assert ending == JobEnding("SUCCEEDED", 0)


def test_a_cluster_that_is_gone() -> None:
    with pytest.raises(
        LaunchError, match=f"{ADDRESS} does not answer any more: Connection refused.* --follow raysubmit_1"
    ):
        follow(Cluster([1], []))


def test_who_reads_the_log_may_stop() -> None:
    def full(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        SubmittedJob(Cluster([3], ["RUNNING"]), ADDRESS, "raysubmit_1").follow(full)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "expected", "reason"),
    [
        ("FAILED", 2, 2, ""),
        ("FAILED", -9, 1, ""),
        ("FAILED", 127, 127, "rank-search installed"),
        ("FAILED", None, 1, "no such package"),
        ("STOPPED", None, 1, "no such package"),
        ("SUCCEEDED", None, 0, ""),
    ],
)
def test_how_it_ends(status: str, code: int | None, expected: int, reason: str) -> None:
    _, ending = follow(Cluster([3], [status], code, "no such package"))
    assert (ending.status, ending.code) == (status, expected)
    assert reason in ending.reason
    assert bool(ending.reason) == bool(reason)
