"""How much memory the start of a search takes beside its model, with all moments at once and with a bound on them.

Run: python -m benchmarks.moment_memory [--blocks 8] [--width 512] [--batches 4] [--memory "100 GB" "100 MB" "40 MB"]

The network of `benchmarks.many_layers`, prepared up to its first trial in a process of its own for each bound. It shows
CPU seconds, the plan as the search says it, and the most anonymous memory (RssAnon, looked at every hundredth of a
second) beyond what was held before: what lies in mapped files does not count, as the system takes it back at will.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.many_layers import Deep, study
from rank_search.run import prepare
from rank_search.tasks import Supervised


class Peak(threading.Thread):
    """The most anonymous memory of this process, in bytes, while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before, self.most, self.ended = anonymous(), 0.0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.01):
            self.most = max(self.most, anonymous())


def anonymous() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def child(blocks: int, width: int, batches: int, memory: str) -> None:
    data = [(torch.randn(16, 128, width),) * 2 for _ in range(batches)]
    task = Supervised(Deep(blocks, width).eval(), data, data, loss_function=F.mse_loss)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("rank_search.steps").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        peak = Peak()
        peak.start()
        begun = time.process_time()
        prepare(study(Path(folder), batches, memory=memory), task)
        print(f"{memory}: {time.process_time() - begun:.1f} s, {(peak.most - peak.before) / 1e6:.0f} MB at the peak")
        peak.ended.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--memory", nargs="+", default=["100 GB", "100 MB", "40 MB"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.blocks, chosen.width, chosen.batches, chosen.child)
        return
    for memory in chosen.memory:
        sizes = ["--blocks", str(chosen.blocks), "--width", str(chosen.width), "--batches", str(chosen.batches)]
        subprocess.run([sys.executable, "-m", "benchmarks.moment_memory", *sizes, "--child", memory], check=True)


if __name__ == "__main__":
    main()
