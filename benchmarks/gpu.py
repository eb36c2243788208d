"""What a GPU does: spectra, fits, a search, trainings and latency, as one table.

Run: benchmarks/gpu.sh [--device cuda] [--data shared/data] [--budget 150] [--small]

Parts, each in seconds by the clock on the wall:

- `check`: a small search there and on the CPU; the largest difference between their measurements.
- `spectra`: singular values of a 4096 × 11008 weight, and EVBMF of them.
- `fits`: of that weight at rank 512, with its decomposition and (warm) without.
- `search`: 200 trials of ResNet-20, untrained.
- `training`: the front's members next to 50 % and 30 % of the MACs, 200 epochs each or as many as fit in the budget.
- `latency`: of the dense network and of these members, at batch 1 and 256.

With the data folder it is CIFAR-10 and its checkpoint; without, random images and weights, labelled by the network.
`--small` is a run of a minute or two on a CPU, for whoever changes this file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

import rank_search as rs
from benchmarks.large_layers import weight_of
from benchmarks.networks import ResNet
from rank_search.launch import LaunchSettings
from rank_search.layers import DirectBases, Layer, copied_to, load_plugin
from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import vbmf
from rank_search.run import confirm, run_study
from rank_search.store import Store, TrialRow
from rank_search.study import Study, device_of, load_study, load_task
from rank_search.tasks import to_device
from rank_search.trials import LatencySettings
from rank_search.trials.latency import measure_latency

STUDY = Path(__file__).parents[1] / "studies" / "cifar_resnet.toml"
SHARES = (0.5, 0.3)

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What a run is asked for.

    Attributes:
        budget: seconds for all trainings.
    """

    device: str
    data: Path
    budget: float
    small: bool
    folder: Path

    @property
    def torch_device(self) -> torch.device:
        return device_of(self.device)

    def timed(self, part: str, what: str, call: Callable[[], T]) -> T:
        """Call it, and show how long it takes until the device is done."""
        self._wait()
        start = time.perf_counter()
        found = call()
        self._wait()
        show(part, what, f"{time.perf_counter() - start:9.3f} s")
        return found

    def _wait(self) -> None:
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize()


def show(part: str, what: str, found: str) -> None:
    print(f"{part:9} {what:58} {found}", flush=True)


# ---- one layer -------------------------------------------------------------------------------------------


def spectra(setting: Setting) -> None:
    rows, columns = (512, 1376) if setting.small else (4096, 11008)
    weight = weight_of(rows, columns).to(setting.torch_device)
    for name in ("first", "again"):
        found = setting.timed("spectra", f"{rows} × {columns}, {name}", lambda: Spectrum.of(weight, "weight"))
    prior = setting.timed("spectra", "EVBMF of them", lambda: vbmf(found))
    show("spectra", "EVBMF's rank", f"{prior.rank:9}")


def fits(setting: Setting) -> None:
    rows, columns, rank = (512, 1376, 64) if setting.small else (4096, 11008, 512)
    weight = weight_of(rows, columns).to(setting.torch_device)
    layer, bases = Layer("layer", "linear", (rows, columns)), DirectBases(weight)

    def fit() -> None:
        form = load_plugin("svd")(layer, rank=rank).to(weight.device)
        with torch.no_grad():
            form.fit(weight, bases)

    setting.timed("fits", f"svd {rows} × {columns}, rank {rank}", fit)
    setting.timed("fits", "the same, warm", fit)


# ---- one network -----------------------------------------------------------------------------------------


def check(setting: Setting) -> None:
    found = []
    for device in ("cpu", setting.device):
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.Flatten(), nn.Linear(6272, 10)
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0, 0.05, generator=generator)
        task = labelled(network, 512, 32)
        tables: dict[str, Any] = {
            "study": {"name": device, "trials": 8},
            "training": {"epochs": 1},
            "launch": {"device": device},
        }
        rows = searched(setting, tables, task)
        found.append({(row.number, name): value for row in rows for name, value in row.measurements.items()})
    here, there = found
    errors = [abs(there[key] - value) for key, value in here.items() if key[1] == "error"]
    counts = [there[key] == value for key, value in here.items() if key[1] in ("macs", "params")]
    show("check", "largest difference of an error from the CPU's", f"{max(errors):9.4f}")
    show("check", "trials with the same costs", f"{sum(counts) // 2:4} of {len(counts) // 2}")


def labelled(network: nn.Module, count: int, size: int) -> rs.Supervised:
    """Random images, with the network's own answers as their labels."""
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = torch.cat([network(part).argmax(1) for part in torch.split(images, 256)])
    batches = list(zip(torch.split(images, 128), torch.split(labels, 128), strict=True))
    return rs.Supervised(network.eval(), batches, batches[: len(batches) // 2])


def task_of(setting: Setting) -> rs.Task:
    if not (setting.data / "cifar10").is_dir():
        show("search", "no CIFAR-10 here", "random images and weights")
        return labelled(ResNet(), 256 if setting.small else 5120, 32)
    study, data = load_study(STUDY), setting.data.resolve()
    options = {"data": str(data / "cifar10"), "weights": str(data / "models" / "resnet20_cifar10.safetensors")}
    task = load_task(study.model_copy(update={"task": study.task.model_copy(update={"options": options})}))
    assert isinstance(task, rs.Supervised)
    return few_of(task) if setting.small else task


def few_of(task: rs.Supervised) -> rs.Supervised:
    """The same with the first batches alone."""
    training, selection = (list(islice(each, 2)) for each in (task.training(), task.selection()))
    return replace(task, training_batches=training, selection_batches=selection, test_batches=None)


def searched(setting: Setting, tables: dict[str, Any], task: rs.Task) -> list[TrialRow]:
    named = {
        **tables["study"],
        "store": str(setting.folder / "gpu.sqlite"),
        "cache": str(setting.folder),
        "test": "none",
    }
    search = {"objectives": ["error", "macs"], "seeds": {"continuous": 0}}
    given = {**tables, "study": named, "search": search, "task": {"factory": "(in memory)"}, "folder": setting.folder}
    result = run_study(Study.from_python(given), task=task)
    with Store.open(result.store) as store:
        return list(store.trials(result.study))


def network(setting: Setting) -> None:
    task, trials = task_of(setting), 4 if setting.small else 200
    layers = {"exclude": ["conv1", "linear"], "factorizations": ["svd-spatial", "svd", "tucker2"]}
    settings = {"epochs": 0, "optimizer": "sgd", "learning_rate": 0.03, "warmup": 0.04, "weight_decay": 1e-4}
    tables: dict[str, Any] = {
        "study": {"name": "gpu", "trials": trials},
        "training": settings,
        "launch": {"device": setting.device},
    }
    if (setting.data / "cifar10").is_dir():
        tables["layers"] = layers
    setting.timed("search", f"ResNet-20, {trials} trials", lambda: searched(setting, tables, task))
    members = members_of(setting)
    trained(setting, task, members)
    latencies(setting, task, members)


def members_of(setting: Setting) -> list[TrialRow]:
    """Of the front, those whose MACs are nearest to the shares of the dense network's."""
    with Store.open(str(setting.folder / "gpu.sqlite")) as store:
        record = store.study("gpu")
        front = list(store.front(record))
    wanted = [share * record.dense["macs"] for share in SHARES]
    return [min(front, key=lambda row: abs(row.measurements["macs"] - macs)) for macs in wanted]


def trained(setting: Setting, task: rs.Task, members: list[TrialRow]) -> None:
    numbers, launch = [row.number for row in members], LaunchSettings(device=setting.device)

    def confirmed(epochs: int) -> None:
        found = confirm(setting.folder / "gpu.sqlite", "gpu", numbers, epochs=epochs, task=task, launch=launch)
        for row in (each.after for each in found.trials):
            show(
                "training",
                f"{row.measurements['macs']:,.0f} MACs, {epochs} epochs",
                f"{row.measurements['error']:9.4f}",
            )

    ends = [time.perf_counter()]
    for epochs in (1, 2):
        setting.timed("training", f"of each member, epochs: {epochs}", lambda epochs=epochs: confirmed(epochs))  # type: ignore[misc]
        ends.append(time.perf_counter())
    start, first, second = ends
    an_epoch = max(0.01, second - first - (first - start))  # what comes before the first is in both
    epochs = min(200, int((setting.budget - (second - start) - (first - start)) / an_epoch))
    if epochs > 2:
        setting.timed("training", f"of each member, epochs: {epochs}", lambda: confirmed(epochs))


def latencies(setting: Setting, task: rs.Task, members: list[TrialRow]) -> None:
    with Store.open(str(setting.folder / "gpu.sqlite")) as store:
        built = {f"trial {row.number}": rs.build_model(store, "gpu", row.number, task) for row in members}
    example = to_device(task.example(), setting.torch_device)
    for batch in (1, 256):
        for name, model in {"dense": task.model(), **built}.items():
            there = copied_to(model, setting.torch_device)
            found = measure_latency(there, example, LatencySettings(batch=batch, repeats=5 if setting.small else 100))
            show("latency", f"{name}, batch {batch}, float32", f"{1e3 * found:9.3f} ms")


PARTS = {"check": check, "spectra": spectra, "fits": fits, "network": network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, default=Path("shared/data"))
    parser.add_argument("--budget", type=float, default=150.0, help="seconds for the trainings")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        budget = 1.0 if given.small else given.budget
        setting = Setting(given.device, given.data, budget, given.small, Path(folder))
        device = setting.torch_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
        show("device", f"{device}, PyTorch {torch.__version__}", name)
        for part in given.parts:
            setting.timed("all", f"of {part}", lambda part=part: PARTS[part](setting))  # type: ignore[misc]


if __name__ == "__main__":
    main()
