"""The stranger's environment, made once for all tests that visit it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.stranger import install


@pytest.fixture(scope="session")
def stranger_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("stranger"))
