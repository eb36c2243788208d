"""What `show` prints beside a measurement: how many times better it is than the dense model's."""

from __future__ import annotations

import pytest

from rank_search.cli.trial_output import _times_better
from rank_search.point import Objective
from tests.store.store_tools import a_record

STUDY = a_record(name="s", objectives=(Objective("score", "maximize"), Objective("bits")))


@pytest.mark.parametrize(
    ("name", "dense", "value", "found"),
    [
        ("bits", 800.0, 200.0, 4.0),
        ("score", 0.8, 0.4, 0.5),
        ("accuracy", 0.5, 0.75, 1.5),
        ("test_score", 2.0, 1.0, 0.5),
        ("score", None, 1.0, None),
        ("score", 0.0, 1.0, None),
    ],
)
def test_more_than_one_is_better_whichever_way_it_goes(
    name: str, dense: float | None, value: float, found: float | None
) -> None:
    assert _times_better(STUDY, name, dense, value) == found
