"""The sparsity penalty: a trial whose training lowers ranks, and is smaller than what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rank_search.artifacts import ArtifactStore
from rank_search.coding import from_safetensors
from rank_search.layers import (
    DirectBases,
    Factorization,
    count_params,
    factorize,
    groups_of,
    load_plugin,
    opened_inventory,
    weight_of,
)
from rank_search.point import Choice, Point, State
from rank_search.training import SparsityPenalty, balance_components
from rank_search.training.shrinking import Shrinking
from rank_search.trials import TrialContext, build, measure, run_trial
from tests.trials.test_settling import IDS, Sentences

MakePoint = Callable[..., Point]
MakeWorkbench = Callable[..., TrialContext]

TRAINED = {"epochs": 4.0, "learning_rate": 1e-2}


def ranks(point: Point) -> dict[str, float]:
    return {f"{name}.{axis}": value for name, choice in point.layers.items() for axis, value in choice.values.items()}


@pytest.mark.parametrize("further", [{}, {"entropy": 0.02}])
def test_training_lowers_ranks_at_no_loss(
    workbench: MakeWorkbench, point: MakePoint, tmp_path: Path, further: dict[str, float]
) -> None:
    made, asked = workbench(**TRAINED), point(sparsity=4.0, **further)
    plain, outcome = (run_trial(made, each, 0, ArtifactStore(tmp_path)) for each in (point(**further), asked))
    assert outcome.state is State.COMPLETE, outcome.reason
    assert outcome.settled is not None
    before, after = ranks(asked), ranks(outcome.settled)
    assert all(after[name] <= before[name] for name in before)
    assert sum(after.values()) < 0.7 * sum(before.values())
    assert outcome.settled.penalties == asked.penalties
    assert outcome.measurements["error"] <= plain.measurements["error"]
    files = {each.kind: ArtifactStore(tmp_path).read(each) for each in outcome.artifacts}
    model = build(made.dense, outcome.settled, made.layers, made.plugins, from_safetensors(files["model"]))
    assert measure(made.task, model, len(files["coded"])) == outcome.measurements
    assert outcome.measurements["params"] == count_params(model) < plain.measurements["params"]


def test_a_strength_of_zero_is_no_penalty(workbench: MakeWorkbench, point: MakePoint) -> None:
    made = workbench(epochs=0.5)
    assert run_trial(made, point(sparsity=0.0), 0) == run_trial(made, point(), 0)


def test_a_dense_point_under_the_penalty_is_not_trained(workbench: MakeWorkbench, dense_point: MakePoint) -> None:
    made = workbench(epochs=0.5)
    assert run_trial(made, dense_point(sparsity=4.0), 0) == run_trial(made, dense_point(), 0)


def test_averaged_weights_settle_as_the_last_ones(workbench: MakeWorkbench, point: MakePoint) -> None:
    last, averaged = (run_trial(workbench(**TRAINED, average=each), point(sparsity=4.0), 0) for each in (0.0, 0.9))
    assert last.settled is not None
    assert averaged.settled == last.settled


def test_macs_are_saved_where_macs_are_asked_for(workbench: MakeWorkbench, point: MakePoint) -> None:
    """Of the parameters the components of the last layer have a large part, of the MACs next to none."""
    by_params, by_macs = (
        run_trial(replace(workbench(**TRAINED), judged=(cost,)), point(sparsity=4.0), 0) for cost in ("params", "macs")
    )
    assert by_macs.measurements["macs"] < by_params.measurements["macs"]


def test_every_kind_of_layer_can_lose_its_components() -> None:
    """Opened, split, grouped and tied layers: each once, and wherever they are used."""
    torch.manual_seed(0)
    model, plugins = Sentences().eval(), {"svd": load_plugin("svd")}
    layers = opened_inventory(model, IDS, split=["qkv:3"]).layers
    point = Point({name: Choice("svd", {"rank": 5}) for name in layers})
    bases = {name: DirectBases(weight_of(model, name), groups=groups_of(model, name)) for name in layers}
    made = factorize(model, point, layers, plugins, bases.__getitem__)
    before = made(IDS)
    balance_components(made, framed=False)
    assert torch.allclose(made(IDS), before, rtol=1e-4, atol=1e-5)
    shrinking = Shrinking(made, SparsityPenalty(1.0), framed=False)
    assert [len(each) for each in shrinking.alive()] == [5] * len(layers)
    shrinking.shrink_(1e4)
    assert not any(bool(each.any()) for each in shrinking.alive())
    forms = [module for module in made.modules() if isinstance(module, Factorization)]
    assert all(not form.dense().any() for form in forms)
    assert not made(IDS).any(), "the head is tied to the embedding and has no bias"
