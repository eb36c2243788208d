"""What the entropy penalty adds to a training step: forward, backward and the optimizers' steps, with and without it.

Run: python -m benchmarks.entropy_step [--rounds 15] [--batch 128]

LeNet-5 in its Caffe form, dense, on images of 28 × 28 pixels, and ResNet-20 on images of 32 × 32 pixels with Tucker-2
at half the ranks in every 3 × 3 convolution but the first. Random images and weights. The kinds take turns, a step at
a time; one thread; processor time, so that other work on the machine counts as little as can be; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.networks import ResNet
from rank_search.layers import Factorization, Layer, load_plugin
from rank_search.quantization import CodingSettings, Quantizer, component_modes, latents
from rank_search.tasks import Supervised
from rank_search.training import EntropyPenalty, FineTuning, Trainer, TrainingSettings

KINDS = {
    "as by default": CodingSettings(),
    "Laplace prior": CodingSettings(prior="laplace"),
    "learned density": CodingSettings(prior="density"),
    "tensors of a kind share a prior": CodingSettings(grouping="kind"),
    "a step for a channel": CodingSettings(steps="channel"),
    "a step for a component": CodingSettings(steps="component"),
    "a step for a frequency": CodingSettings(steps="frequency"),
}


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)),
    )


def factorized_resnet() -> nn.Module:
    model, tucker = ResNet(), load_plugin("tucker2")
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and module.in_channels > 3:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _factorized(tucker, module))
    return model


def _factorized(plugin: type[Factorization], module: nn.Conv2d) -> Factorization:
    made = plugin(Layer.of(module), rank_out=module.out_channels // 2, rank_in=module.in_channels // 2)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return made


def stepper(make: Callable[[], nn.Module], batch: tuple[Tensor, Tensor], coding: CodingSettings | None) -> Trainer:
    torch.manual_seed(0)
    model = make()
    penalty = None
    if coding is not None:
        penalty = EntropyPenalty(Quantizer(latents(model), 4, coding, component_modes(model)), 1e-6)
    task = Supervised(model, [batch], [batch], [batch])
    return Trainer(task, model, FineTuning(TrainingSettings(epochs=10_000), entropy=penalty))


def measure(make: Callable[[], nn.Module], images: Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of a step; the first kind is without the penalty."""
    batch = (images, torch.randint(10, (len(images),)))
    kinds: dict[str, CodingSettings | None] = {"without": None, **KINDS}
    trainings = {name: stepper(make, batch, coding) for name, coding in kinds.items()}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 2):
        for name, training in trainings.items():
            start = time.process_time()
            assert training.advance(number + 1) is None
            times[name].append(time.process_time() - start)
    return {name: 1e3 * statistics.median(found[2:]) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| step | " + " | ".join(["LeNet-5", "ResNet-20, Tucker-2"]) + " |")
    print("| --- | --- | --- |")
    cases = [(lenet, (1, 28, 28)), (factorized_resnet, (3, 32, 32))]
    found = [measure(make, torch.randn(given.batch, *shape), given.rounds) for make, shape in cases]
    for name in found[0]:
        cells = [f"{each[name]:.1f} ms ({each[name] / each['without'] - 1:+.0%})" for each in found]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
