"""A process that is killed while it records, at a given step.

Run: python -m tests.fronts.dying URL STUDY STEP
"""

from __future__ import annotations

import os
import signal
import sys

from rank_search.fronts import ledger
from tests.fronts import recorder


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    setattr(ledger, sys.argv[3], die)
    recorder.main(sys.argv[1], sys.argv[2], "victim", 0, 100)
