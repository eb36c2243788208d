"""Rank and the entropy penalty together: does rank make files smaller where layers are not over-parameterized?

    python -m benchmarks.rank_and_penalty studies/cifar_resnet.toml --options '{"data": …, "weights": …}'
        [--shares 1 0.7 0.5] [--strengths 0.4 0.8] [--epochs 5] [--precision bfloat16] [--out rows.jsonl]

Each row is a trial of the study with this share of the MACs (1: all layers dense; below: the exact allocation, among
the study's factorizations) and this strength of the entropy penalty, trained as the study's `[training]` says.
`bytes` is the whole coded network, decoded again before the selection error was measured; the test error is that of
the same network. Rows are kept in `--out` as they come, and not made twice.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import rank_search as rs
from benchmarks.all_families import with_options
from rank_search.artifacts import ArtifactStore
from rank_search.coding import from_safetensors
from rank_search.point import Choice, Point, State
from rank_search.run import Prepared, prepare
from rank_search.run.worker import make_context
from rank_search.study import Study, load_study
from rank_search.trials import build, run_trial, test_measurements


def study_of(given: argparse.Namespace) -> Study:
    study = with_options(load_study(given.study), given.options)
    training = study.training.model_copy(update={"epochs": given.epochs, "precision": given.precision})
    search = study.search.model_dump() | {
        "objectives": ["error", "bits"],
        "reference": {},
        "entropy": {"low": min(given.strengths) / 2, "high": max(given.strengths) * 2},
    }
    changed = {"training": training, "search": type(study.search).model_validate(search)}
    return study.model_copy(update=changed)


def allocated(prepared: Prepared, share: float) -> dict[str, Choice]:
    """The layers of the exact allocation within a share of the MACs; none at 1."""
    if share >= 1:
        return {}
    assert prepared.options is not None
    return dict(rs.allocate(prepared.options, macs=share).point.layers)


def row(prepared: Prepared, point: Point, folder: Path) -> dict[str, Any]:
    """Train, code, decode and measure one point."""
    problem, store = prepared.problem, ArtifactStore(folder)
    context = replace(make_context(problem, prepared.bases, prepared.batches), judged=("error", "bits"))
    started = time.process_time()
    outcome = run_trial(context, point, 0, store)
    if outcome.state is not State.COMPLETE:
        raise SystemExit(f"The trial of {point} came to {outcome.state}: {outcome.reason}")
    files = {artifact.kind: store.read(artifact) for artifact in outcome.artifacts}
    became = outcome.settled or point
    decoded = build(problem.model, became, problem.inventory.layers, problem.plugins, from_safetensors(files["model"]))
    tested = test_measurements(problem.task, decoded)
    return {
        "bytes": len(files["coded"]),
        "error": outcome.measurements["error"],
        "test error": tested["test_error"],
        "minutes": (time.process_time() - started) / 60,
    }


def kept(file: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of `--out` with these settings."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return next((each for each in rows if about.items() <= each.items()), None)


def shown(found: Mapping[str, Any]) -> str:
    errors = f"{found['error']:.2%} | {found['test error']:.2%}"
    return f"{found['bytes']:,} | {errors} | {found['minutes']:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="of the study's task")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.7, 0.5])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.4, 0.8])
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", type=Path, default=Path("runs/rank_and_penalty.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    prepared = prepare(study_of(given))
    print("| share of the MACs | strength | bytes | selection error | test error | CPU minutes |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for strength in given.strengths:
        for share in given.shares:
            about = {"study": given.study.name, "options": given.options, "share": share, "strength": strength}
            about |= {"epochs": given.epochs, "precision": given.precision}
            found = kept(given.out, about)
            if found is None:
                point = Point(allocated(prepared, share), {"entropy": strength})
                found = about | row(prepared, point, given.out.parent / "artifacts")
                with given.out.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            print(f"| {share:.0%} | {strength:g} | {shown(found)} |", flush=True)


if __name__ == "__main__":
    main()
