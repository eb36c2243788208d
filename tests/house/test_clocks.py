"""No test depends on how fast the machine is."""

from __future__ import annotations

from hypothesis import settings


def test_examples_of_properties_have_no_deadline() -> None:
    assert settings().deadline is None
