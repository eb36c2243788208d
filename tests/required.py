"""What a machine may lack: a test is skipped there, but where the lack must not pass it fails."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def do_without(required: str, reason: str) -> NoReturn:
    """Skip the test for that reason; fail it if the environment variable `required` is set."""
    if os.environ.get(required):
        pytest.fail(f"{required} is set, and yet: {reason}", pytrace=False)
    pytest.skip(reason)
