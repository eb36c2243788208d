"""A trial that eats memory fails alone, and says why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rank_search.trials.limits import memory_limited

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
HUNGRY = Path(__file__).with_name("hungry.py")


@linux
def test_a_trial_that_eats_memory_fails_alone() -> None:
    done = subprocess.run([sys.executable, HUNGRY], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = {name: (state, reason) for name, state, reason in json.loads(done.stdout)}
    assert list(found) == ["modest", "lists", "tensors", "arrays", "little_by_little", "broken", "modest again"]
    for name in ("lists", "tensors", "arrays", "little_by_little"):
        state, reason = found[name]
        assert state == "failed"
        assert reason.startswith("MemoryError: a trial may take memory_per_trial = 0.25 GiB beyond what its worker")
    assert found["modest"] == found["modest again"] == ("complete", "")
    assert found["broken"] == ("failed", "RuntimeError: something else")


@pytest.mark.parametrize("gibibytes", [None, 4.0])
def test_errors_that_are_not_of_memory_pass_the_memory_limit(gibibytes: float | None) -> None:
    for error in (RuntimeError("something"), OSError(2, "not there"), ValueError("else"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, memory_limited(gibibytes):
            raise error
        assert raised.value is error
    with memory_limited(gibibytes):
        assert len(bytearray(10_000_000)) == 10_000_000
