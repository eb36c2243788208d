"""What a checkpoint on the way of a training costs: its bytes, and the seconds until it is on the disk.

Run: python -m benchmarks.checkpoints [--rounds 15] [--batch 128] [--folder /tmp]

ResNet-20 on images of 32 × 32 pixels with Tucker-2 at half the ranks in every 3 × 3 convolution but the first; random
images and weights; AdamW, with averaged weights and with the entropy penalty too. A checkpoint takes turns with a step;
one thread; medians; processor time for steps and for making the bytes, wall time for writing them, which waits for the
disk. The share is that of a checkpoint every ten minutes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch

from benchmarks.entropy_step import factorized_resnet
from rank_search.artifacts import ArtifactStore, Recoveries
from rank_search.quantization import CodingSettings, Quantizer, component_modes, latents
from rank_search.tasks import Supervised
from rank_search.training import EntropyPenalty, FineTuning, Trainer, TrainingSettings

EVERY = 600.0
WAYS = {
    "weights alone": (0.0, False),
    "averaged too": (0.999, False),
    "averaged, under the entropy penalty": (0.999, True),
}


def trainer(batch: int, average: float, coded: bool) -> Trainer:
    torch.manual_seed(0)
    model = factorized_resnet()
    data = [(torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,)))]
    penalty = None
    if coded:
        quantizer = Quantizer(latents(model), 4, CodingSettings(), component_modes(model))
        penalty = EntropyPenalty(quantizer, 1e-6)
    settings = TrainingSettings(epochs=10_000, average=average)
    return Trainer(Supervised(model, data, data, data), model, FineTuning(settings, entropy=penalty))


def measure(training: Trainer, rounds: int, folder: str) -> tuple[int, float, float, float]:
    """Bytes, and the median seconds of a step, of making the bytes, and of writing them."""
    recoveries = Recoveries(ArtifactStore(folder), "0" * 64, "mark")
    steps, made, written = list[float](), list[float](), list[float]()
    for step in range(1, rounds + 2):
        begun = time.process_time()
        training.advance(step)
        advanced = time.process_time()
        data = training.kept(epochs=training.epochs).to_bytes()
        steps.append(advanced - begun)
        made.append(time.process_time() - advanced)
        begun = time.perf_counter()
        recoveries.keep(data, 1, training.epochs)
        written.append(time.perf_counter() - begun)
    one, two, three = (statistics.median(each[1:]) for each in (steps, made, written))
    return len(data), one, two, three


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--folder", default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| ResNet-20 | MB | a step, ms | bytes made, ms | written, ms | share at one in ten minutes |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (average, coded) in WAYS.items():
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            size, *seconds = measure(trainer(given.batch, average, coded), given.rounds, folder)
        step, made, written = (1000 * each for each in seconds)
        share = (made + written) / 1000 / EVERY
        print(f"| {name} | {size / 1e6:.2f} | {step:.0f} | {made:.1f} | {written:.1f} | {100 * share:.4f} % |")


if __name__ == "__main__":
    main()
