"""Coded size against accuracy: entropy penalty, rank and both, beside 8 bits + deflate and Deep Compression.

Run: python -m benchmarks.bits lenet-300-100 --data fashion_mnist.npz [--folder runs/bits] [--epochs 10]
         [--dense-epochs 8] [--methods entropy "rank + entropy" …] [--prices 0.3 1 3]
         [--tables '{"training": {"average": 0.99}}']
     python -m benchmarks.bits lenet-300-100 --data … --report bits.json

`--data` is a folder of idx files as MNIST has them, or an .npz file. Every row is a file that was written, read back
and measured: `bytes` is its whole size, `error` that of the decoded network on the selection data. Rows are kept in
the folder as they come, with their settings, and are not made twice with the same ones. `--report` measures the rows
that no other of their method and settings beats, on the test data, and prints them; nothing is chosen by that number.
A star is at the smallest file of each whose selection error is above the dense network's by no more than chance (95 %).

Ours are trials of a study (`rank_search.trials.run_trial`): fitted, trained, coded, decoded. The ranks are allocations
along the front that seed points come from.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final
from unittest.mock import MagicMock, patch

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.deep_compression import eight_bits, from_eight_bits, from_huffman_coded, huffman_coded, pruned, shared
from benchmarks.lenets import NETWORKS, SELECTION, digest, read, task_of
from rank_search.artifacts import ArtifactStore
from rank_search.coding import Grid, encode, from_safetensors, plans
from rank_search.point import Choice, Point, State
from rank_search.run import Prepared, prepare
from rank_search.run.worker import make_context
from rank_search.store import half_width
from rank_search.study import IN_PYTHON, Study
from rank_search.tasks import Supervised
from rank_search.trials import TrialContext, build, measure, run_trial, test_measurements, trial

PRICES: Final = (0.3, 1.0, 3.0, 10.0)
QUALITIES: Final = (1.5, 2.0, 2.5, 3.0)
VALUES: Final = 16

Tables = Mapping[str, Mapping[str, Any]]

TRAINING: Final[Tables] = {
    "lenet-300-100": {"learning_rate": 1e-3},
    "lenet-5": {"learning_rate": 3e-3, "entropy_start_bits": 2, "entropy_warmup": 0.05},
}
"""Of a study file, for each network: how ours are trained, but for the epochs."""


@dataclass(frozen=True)
class Ours:
    """One way to make trials.

    Attributes:
        ranks: whether layers are factorized; entropy: whether the rate is penalized; the rest as in a study file.
    """

    ranks: bool
    entropy: bool
    orthogonality: float = 0.0
    tables: Tables | None = None


OURS: Final[Mapping[str, Ours]] = {
    "entropy": Ours(ranks=False, entropy=True),
    "rank": Ours(ranks=True, entropy=False, orthogonality=0.03),
    "rank + entropy": Ours(ranks=True, entropy=True, orthogonality=0.03),
    "rank + entropy, not orthogonal": Ours(ranks=True, entropy=True),
}
ANCHORS: Final = ("dense", "8 bits + deflate", "Deep Compression")


@dataclass(frozen=True)
class Bench:
    """A network with its data, told apart by a digest, and the folder where rows are kept."""

    network: str
    task: Supervised
    data: str
    folder: Path
    given: argparse.Namespace

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of this data."""
        return [row for row in self._kept() if row["settings"].get("data") == self.data]

    def _kept(self) -> list[dict[str, Any]]:
        path = self.folder / "rows.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def settings(self) -> dict[str, Any]:
        """What a row was made with, beside what its method and label say."""
        epochs = {"epochs": self.given.epochs, "dense epochs": self.given.dense_epochs}
        return {"data": self.data, **epochs, "training": self.training, "tables": self.given.tables}

    @property
    def training(self) -> dict[str, Any]:
        """The table of a study file, but for what a method says beside it."""
        return {"epochs": self.given.epochs, **TRAINING[self.network], **self.given.tables.get("training", {})}

    def add(self, method: str, label: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """A row, unless it is there."""
        about = {"method": method, "label": label, "settings": self.settings}
        if any(about.items() <= row.items() for row in self.rows):
            return
        name = f"{method}, {label}"
        print(f"{name}: training and coding", flush=True)
        started = time.perf_counter()
        row = {**about, **make(), "seconds": round(time.perf_counter() - started)}
        with (self.folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name:56} {row['bytes']:8} bytes, error {row['error']:.2%}  ({row['seconds']} s)", flush=True)

    def keep(self, data: bytes, state: Mapping[str, torch.Tensor], point: Point) -> dict[str, Any]:
        """What a row says about a network that was decoded."""
        file = self.folder / f"{len(self._kept())}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
        error = measure(self.task, self.built(point, file), len(data))["error"]
        return {"bytes": len(data), "error": error, "file": file.name, "point": point.to_json()}

    def built(self, point: Point, file: Path) -> nn.Module:
        problem = self.prepared({}).problem
        return build(problem.model, point, problem.inventory.layers, problem.plugins, load_file(file))

    def prepared(self, tables: Tables) -> Prepared:
        """A study of this network with these tables of a study file."""
        defaults: dict[str, dict[str, Any]] = {
            "study": {"name": self.network, "cache": str(self.folder.absolute() / "cache")},
            "task": {"factory": IN_PYTHON},
            "layers": {"factorizations": ["svd", "tucker2"]},
            "search": {"objectives": ["error", "bits"], "seeds": {"allocations": 24}},
            "training": self.training,
        }
        names = [*defaults, *(name for name in tables if name not in defaults)]
        merged = {name: {**defaults.get(name, {}), **tables.get(name, {})} for name in names}
        return prepare(Study.model_validate({**merged, "folder": self.folder}), self.task)


def anchors(bench: Bench, methods: Sequence[str]) -> None:
    network, epochs = bench.task.model(), bench.given.epochs
    state, nothing = network.state_dict(), Point({})
    if "dense" in methods:
        raw = b"".join(tensor.numpy().tobytes() for tensor in state.values())
        bench.add("dense", "32 bits", lambda: bench.keep(raw, state, nothing))
    if "8 bits + deflate" in methods:
        data = eight_bits(state)
        bench.add("8 bits + deflate", "8 bits", lambda: bench.keep(data, from_eight_bits(data), nothing))
    for quality in bench.given.qualities if "Deep Compression" in methods else ():
        bench.add("Deep Compression", f"quality {quality:g}", partial(_compressed, bench, quality, epochs))


def _compressed(bench: Bench, quality: float, epochs: int) -> dict[str, Any]:
    """Two thirds of the epochs for pruning, one for the values."""
    torch.manual_seed(0)
    last = max(1, epochs // 3)
    cut = pruned(bench.task.model(), bench.task.training_batches, quality, epochs - last)  # type: ignore[arg-type]
    data = huffman_coded(shared(cut, bench.task.training_batches, VALUES, last).state_dict())  # type: ignore[arg-type]
    return bench.keep(data, from_huffman_coded(data), Point({}))


def ours(bench: Bench, method: str) -> None:
    """All rows of one method: ranks × prices."""
    way = OURS[method]
    prepared = bench.prepared({**(way.tables or {}), **bench.given.tables})
    workbench = make_context(prepared.problem, prepared.bases, prepared.batches)
    for label, layers in _ranks(prepared, bench.given.kept) if way.ranks else [("", {})]:
        for price in bench.given.prices if way.entropy else [0.0]:
            penalties = {"entropy": price, "orthogonality": way.orthogonality if layers else 0.0}
            point = Point(layers, {name: value for name, value in penalties.items() if value > 0})
            shown = " ".join(filter(None, [label, f"λ {price:g}" if price else ""]))
            bench.add(method, shown, partial(_trial, bench, workbench, point))


def _ranks(prepared: Prepared, kept: Sequence[float]) -> Iterator[tuple[str, dict[str, Choice]]]:
    """Of the allocations, those whose shares of the parameters are closest to what is asked for."""
    seeds = [seed for seed in prepared.seeds if seed.label.startswith("allocation")]
    dense = prepared.costs.dense["params"]
    for share in kept:
        nearest = min(seeds, key=lambda seed: abs(prepared.costs.cost(seed.point)["params"] / dense - share))
        yield f"params {share:.0%}", dict(nearest.point.layers)


def _trial(bench: Bench, workbench: TrialContext, point: Point) -> dict[str, Any]:
    store = ArtifactStore(bench.folder / "artifacts")
    with _coders_apart() as apart:
        outcome = run_trial(workbench, point, 0, store)
    if outcome.state is not State.COMPLETE:
        raise SystemExit(f"The trial of {point} came to {outcome.state}: {outcome.reason}")
    files = {artifact.kind: store.read(artifact) for artifact in outcome.artifacts}
    row = bench.keep(files["coded"], from_safetensors(files["model"]), outcome.settled or point)
    assert row["error"] == outcome.measurements["error"]
    assert 8 * row["bytes"] == outcome.measurements["bits"]
    return {**row, **apart}


@contextmanager
def _coders_apart() -> Iterator[dict[str, int]]:
    """Bytes of the same numbers where some coders are left out; filled when a trial codes its model."""
    sizes: dict[str, int] = {}
    nothing = MagicMock(return_value=())
    left_out: dict[str, dict[str, Any]] = {
        "priors alone": {"ADAPTIVE_MOST": 0, "_with_table": nothing},
        "priors and tables": {"ADAPTIVE_MOST": 0},
        "adaptive alone": {"_with_prior": nothing, "_with_table": nothing},
    }

    def noting(state: Mapping[str, torch.Tensor], grids: Mapping[str, Grid] | None = None) -> bytes:
        for name, replaced in left_out.items() if grids else ():
            with patch.multiple(plans, **replaced):
                sizes[name] = len(encode(state, grids))
        return encode(state, grids)

    with patch.object(trial, "encode", noting):
        yield sizes


def report(bench: Bench, output: Path) -> None:
    """Test errors of the rows that no other of their method and settings beats."""
    rows, found = bench.rows, []
    for row in rows:
        rivals = [other for other in rows if _series(other) == _series(row) and other is not row]
        if any(other["bytes"] <= row["bytes"] and other["error"] <= row["error"] for other in rivals):
            continue
        network = bench.built(Point.from_json(row["point"]), bench.folder / row["file"])
        found.append({**row, **test_measurements(bench.task, network)})
    found.sort(key=lambda row: (_series(row), row["bytes"]))
    starred = [row["file"] for row in chosen(rows)]
    print("| method | setting | epochs | bytes | selection error | test error |\n| --- | --- | --- | --- | --- | --- |")
    for row in found:
        star = " *" if row["file"] in starred else ""
        numbers = f"{row['bytes']:,}{star} | {row['error']:.2%} | {row['test_error']:.2%}"
        print(f"| {row['method']} | {row['label']}{_changes(row)} | {row['settings']['epochs']} | {numbers} |")
    output.write_text(json.dumps({"network": bench.network, "rows": found}, indent=1))


def _changes(row: Mapping[str, Any]) -> str:
    """The tables of a study file that changed it."""
    tables = row["settings"]["tables"]
    return f", {json.dumps(tables)}" if tables else ""


def _series(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["method"], json.dumps(row["settings"], sort_keys=True)


def chosen(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each method and settings the smallest file as accurate as the dense network, as far as chance tells."""
    dense = {row["settings"]["dense epochs"]: row["error"] for row in rows if row["method"] == "dense"}
    smallest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["bytes"], reverse=True):
        error = dense.get(row["settings"]["dense epochs"])
        if error is not None and row["error"] <= error + half_width(error, SELECTION):
            smallest[_series(row)] = row
    return list(smallest.values())


def told_of_passes() -> Callable[[], None]:
    """Prints a line when a pass over the training images begins."""
    started, passes = time.perf_counter(), count(1)

    def began() -> None:
        print(f"  pass {next(passes)} over the training images, {time.perf_counter() - started:.0f} s", flush=True)

    return began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=[*NETWORKS])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/bits"))
    parser.add_argument("--methods", nargs="*", default=[*ANCHORS, *OURS], choices=[*ANCHORS, *OURS])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--dense-epochs", type=int, default=8, help="of the dense network, which is trained first")
    parser.add_argument("--prices", nargs="*", type=float, default=PRICES)
    parser.add_argument("--qualities", nargs="*", type=float, default=QUALITIES, help="of Deep Compression")
    parser.add_argument("--kept", nargs="*", type=float, default=[0.3, 0.15, 0.08], help="shares of the parameters")
    parser.add_argument("--tables", type=json.loads, default={}, help="of a study file, as JSON: change ours")
    parser.add_argument("--report", type=Path, default=None, metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = task_of(given.network, given.data, given.folder, given.dense_epochs, told_of_passes())
    data = digest(read(given.data)["train_labels"])
    bench = Bench(given.network, task, data, given.folder / given.network, given)
    bench.folder.mkdir(parents=True, exist_ok=True)
    if given.report:
        report(bench, given.report)
        return
    anchors(bench, given.methods)
    for method in given.methods:
        if method in OURS:
            ours(bench, method)


if __name__ == "__main__":
    main()
