"""The task files of studies/, imported as a study imports them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

STUDIES = Path(__file__).parents[2] / "studies"


@contextmanager
def study_module(name: str) -> Iterator[ModuleType]:
    """`studies/NAME.py`, under another name than a study would give it."""
    spec = importlib.util.spec_from_file_location(f"{name}_in_test", STUDIES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
