"""A process that is killed while it records, or replaces the row of a promoted trial, at a given step.

Run: python -m tests.store.dying URL STUDY STEP
"""

from __future__ import annotations

import os
import signal
import sys

from rank_search.store import ledger
from tests.store import promoter, recorder


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    url, study, step = sys.argv[1:]
    setattr(ledger, step, die)
    promoter.main(url, study, "victim")
    recorder.main(url, study, "victim", 0, 100)
