"""The stages that the benchmark of the start watches are functions that there are."""

from __future__ import annotations

from importlib import import_module

import pytest

from benchmarks.first_trial import WATCHED


@pytest.mark.parametrize(("module", "name"), [each[:2] for each in WATCHED])
def test_what_is_watched_is_there(module: str, name: str) -> None:
    assert callable(getattr(import_module(f"rank_search.run.{module}"), name))
