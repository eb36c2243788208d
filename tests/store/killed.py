"""Kills processes in the middle of recording, each in a fresh fork.

Run: python -m tests.store.killed URL STUDY ROUNDS
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from tests.store import recorder


def main(url: str, name: str, rounds: int) -> None:
    for attempt in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            sys.stdout = os.fdopen(writing, "w")
            recorder.main(url, name, f"victim {attempt}", attempt * 10**5, (attempt + 1) * 10**5)
        os.read(reading, 1)  # it has recorded one, and goes on
        time.sleep(random.Random(attempt).uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
