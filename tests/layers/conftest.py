"""What several tests of layers start from."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.layers.conv1d import Conv1D


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if transformers had been imported."""
    module = ModuleType("transformers.pytorch_utils")
    module.Conv1D = Conv1D  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
