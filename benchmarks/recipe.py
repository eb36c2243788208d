"""Which settings of the training recover most, on short runs of one member.

    python -m benchmarks.recipe studies/cifar_resnet.toml --options '{"data": …, "weights": …}' --share 0.3 --epochs 6
        --precision bfloat16 --recipes '{}' '{"learning_rate": 0.1}' '{"orthogonality": 0.01}' [--out rows.jsonl]

The member is the exact allocation of this share of the MACs among the study's factorizations. A recipe is what it
changes in the study's `[training]`; `orthogonality` is the strength of that penalty. Printed are the error and the mean
cross-entropy on the selection data, which tells more than a count of some hundred errors; test data is not looked at.
Rows are kept in `--out` as they come, and not made twice.
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
import torch.nn.functional as F
from torch import nn

from benchmarks.all_families import with_options
from benchmarks.rank_and_penalty import allocated, kept
from rank_search.artifacts import ArtifactStore
from rank_search.coding import from_safetensors
from rank_search.point import Point, State
from rank_search.run import Prepared, prepare
from rank_search.run.worker import make_context
from rank_search.study import load_study
from rank_search.tasks import Supervised
from rank_search.training import TrainingSettings
from rank_search.trials import TrialContext, build, run_trial

ORTHOGONALITY = "orthogonality"


def trained(context: TrialContext, layers: Point, recipe: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """The member after the training of a recipe."""
    changes = {name: value for name, value in recipe.items() if name != ORTHOGONALITY}
    training = TrainingSettings.model_validate(context.training.model_dump() | changes)
    point = replace(layers, penalties={name: recipe[name] for name in recipe if name == ORTHOGONALITY})
    store, started = ArtifactStore(folder), time.process_time()
    outcome = run_trial(replace(context, training=training), point, 0, store)
    if outcome.state is not State.COMPLETE:
        raise SystemExit(f"The training of {recipe} came to {outcome.state}: {outcome.reason}")
    files = {artifact.kind: store.read(artifact) for artifact in outcome.artifacts}
    model = build(
        context.dense, outcome.settled or point, context.layers, context.plugins, from_safetensors(files["model"])
    )
    seconds = time.process_time() - started
    return {
        "error": outcome.measurements["error"],
        "cross-entropy": cross_entropy(context, model),
        "minutes": seconds / 60,
    }


def cross_entropy(context: TrialContext, model: nn.Module) -> float:
    """Nats for each example of the selection data."""
    if not isinstance(context.task, Supervised):
        raise SystemExit("The task of the study is no Supervised: it has no cross-entropy.")
    task = replace(context.task, metric=lambda outputs, targets: float(F.cross_entropy(outputs, targets)))
    with torch.no_grad():
        return float(next(iter(task.evaluate(model.eval(), task.selection()).values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="of the study's task")
    parser.add_argument("--share", type=float, default=0.3, help="of the MACs")
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--recipes", type=json.loads, nargs="+", default=[{}])
    parser.add_argument("--out", type=Path, default=Path("runs/recipe.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    context, member = prepared_member(given)
    print("| recipe | selection error | cross-entropy | CPU minutes |\n| --- | ---: | ---: | ---: |", flush=True)
    for recipe in given.recipes:
        about = {"study": given.study.name, "options": given.options, "share": given.share}
        about |= {"epochs": given.epochs, "precision": given.precision, "recipe": recipe}
        found = kept(given.out, about)
        if found is None:
            changes = {"epochs": given.epochs, "precision": given.precision, **recipe}
            found = about | trained(context, member, changes, given.out.parent / "artifacts")
            with given.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
        named = ", ".join(f"{name} = {value}" for name, value in recipe.items()) or "the study's"
        print(f"| {named} | {found['error']:.2%} | {found['cross-entropy']:.4f} | {found['minutes']:.1f} |", flush=True)


def prepared_member(given: argparse.Namespace) -> tuple[TrialContext, Point]:
    prepared: Prepared = prepare(with_options(load_study(given.study), given.options))
    return make_context(prepared.problem, prepared.bases, prepared.batches), Point(allocated(prepared, given.share))


if __name__ == "__main__":
    main()
