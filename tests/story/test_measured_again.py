"""A rebuilt model measures what its trial did, but for the rounding of another processor."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rank_search.store import Store
from tests.story.small import Command, Small, write_study

EXAMPLES = 200
"""In the selection data of the small study."""

WARNING = "another processor rounds otherwise"


def front_member(study: Small) -> tuple[int, float]:
    """The number of a factorized member of the front, and its error."""
    with Store.open(study.store) as store:
        row = next(row for row in store.front(store.study("stripes")) if row.measurements["error"] not in (0, 1))
        return row.number, row.measurements["error"]


def record(study: Small, number: int, name: str, value: float) -> None:
    """Change what was recorded of a trial."""
    change = (
        "UPDATE rs_measurement SET value = ? WHERE name = ? AND trial_id = (SELECT id FROM rs_trial WHERE number = ?)"
    )
    with closing(sqlite3.connect(study.store)) as connection, connection:
        assert connection.execute(change, (value, name, number)).rowcount == 1


@pytest.mark.parametrize("verb", ["export", "pack"])
def test_one_example_that_another_processor_classifies_otherwise_is_a_warning(
    copied: Small, command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    number, error = front_member(copied)
    record(copied, number, "error", error + 1 / EXAMPLES)
    command.fine(verb, copied.store, "stripes", number, "-o", tmp_path / "made.rsz")
    assert caplog.text.count(WARNING) == 1
    assert f"trial {number} has error = {error}" in caplog.text


@pytest.mark.parametrize("verb", ["export", "pack"])
@pytest.mark.parametrize("examples", [2, 20])
def test_more_than_rounding_is_refused(
    copied: Small, command: Command, tmp_path: Path, verb: str, examples: int
) -> None:
    number, error = front_member(copied)
    record(copied, number, "error", error + examples / EXAMPLES)
    said = command.refused(verb, copied.store, "stripes", number, "-o", tmp_path / "made.rsz")
    assert "Has the selection data changed?" in said
    assert not (tmp_path / "made.rsz").exists()


def test_what_is_no_share_of_the_examples_may_differ_by_a_thousandth(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The mean divergence from the dense model, say."""
    study = write_study(tmp_path / "study", data={"labels": False}, search={"objectives": ["kl", "macs", "bits"]})
    command.fine("run", study.file)
    with Store.open(study.store) as store:
        row = next(row for row in store.front(store.study("stripes")) if row.measurements["kl"] > 0)
    for factor, code in ((1 + 1e-7, 0), (1 - 5e-4, 0), (1.01, 2)):
        record(study, row.number, "kl", factor * row.measurements["kl"])
        caplog.clear()
        answer = command("export", study.store, "stripes", row.number, "-o", tmp_path / f"made{factor}")
        assert answer.code == code, answer
        assert (WARNING in caplog.text) == (code == 0)
