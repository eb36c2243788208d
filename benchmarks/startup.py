"""How long `rank-search --help` and `rank-search front` take as whole processes, beside importing torch and optuna.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rank_search.point import Choice, Execution, Objective, Outcome, Point, State
from rank_search.store import Store, StudyRecord

REPEATS = 7
COMMAND = str(Path(sys.executable).parent / "rank-search")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store.sqlite"
        fill(store)
        rows = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "rank-search --help": [COMMAND, "--help"],
            "rank-search front, 100 trials": [COMMAND, "front", store, "study"],
            "python -c 'import optuna'": [sys.executable, "-c", "import optuna"],
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        }
        print(f"{'process':<32} {'median s':>9} {'fastest s':>10}   (aim: at most 0.5 s for rank-search)")
        for name, command in rows.items():
            times = [seconds(command) for _ in range(REPEATS)]
            print(f"{name:<32} {statistics.median(times):>9.2f} {min(times):>10.2f}")


def fill(path: str) -> None:
    """A study of 100 trials of 20 layers, 50 of them on the front."""
    study = StudyRecord(
        name="study",
        fingerprint={},
        space={},
        objectives=(Objective("error"), Objective("macs")),
        reference_point={"error": 1.0, "macs": 100.0},
        ideal={"error": 0.0, "macs": 0.0},
        dense={"error": 0.0, "macs": 100.0},
        budget=1.0,
    )
    now = datetime.now(UTC)
    with Store.open(path, create=True) as store:
        study = store.join(study)
        for number in range(100):
            point = Point({f"layer{each}": Choice("svd", {"rank": number}) for each in range(20)})
            claim = store.claim(study, point, "benchmark")
            if claim is None:
                raise RuntimeError("every point of this benchmark is new")
            losses = {"error": number / 100 + (number % 2), "macs": 100.0 - number}
            outcome = Outcome(State.COMPLETE, losses)
            store.record(study, claim, outcome, Execution(0, now, now))


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
