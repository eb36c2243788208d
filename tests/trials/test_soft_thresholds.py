"""Trials whose training learns thresholds: zeros are zeros in what is stored, ranks settle, rungs change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rank_search.artifacts import ArtifactStore
from rank_search.coding import decode, from_safetensors
from rank_search.layers import count_params, load_plugin
from rank_search.point import Choice, Outcome, Point, State
from rank_search.trials import TrialContext, build, measure, run_trial

MakeWorkbench = Callable[..., TrialContext]

SPARSE = "soft-threshold"
LEARNED = "soft-rank"
BOTH = pytest.mark.parametrize("form", [SPARSE, LEARNED])


@pytest.fixture
def bench(workbench: MakeWorkbench) -> MakeWorkbench:
    def make(**training: object) -> TrialContext:
        made = workbench(**({"epochs": 2.0, "learning_rate": 1e-2} | training))
        return replace(made, plugins={**made.plugins, **{name: load_plugin(name) for name in (SPARSE, LEARNED)}})

    return make


def asked(form: str, folds: float, **penalties: float) -> Point:
    """In the second convolution and the last layer, of full rank."""
    ranks = {"4": {"rank": 24}, "10": {"rank": 4}}
    values = {name: {**(rank if form == LEARNED else {}), "folds": folds} for name, rank in ranks.items()}
    return Point({name: Choice(form, each) for name, each in values.items()}, penalties)


def files_of(outcome: Outcome, store: ArtifactStore) -> dict[str, bytes]:
    assert outcome.state is State.COMPLETE, outcome.reason
    return {each.kind: store.read(each) for each in outcome.artifacts}


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("penalties", [{}, {"entropy": 0.02}], ids=["plain", "entropy"])
def test_zeros_are_zeros_in_what_is_stored(
    bench: MakeWorkbench, tmp_path: Path, penalties: dict[str, float], average: float
) -> None:
    store = ArtifactStore(tmp_path)
    made = bench(average=average)
    outcome = run_trial(made, asked(SPARSE, 12.0, **penalties), 0, store)
    state = decode(files_of(outcome, store)["coded"])
    for name in ("4", "10"):
        assert 0 < (state[f"{name}.full"] == 0).float().mean() < 1
    model = build(made.dense, asked(SPARSE, 12.0), made.layers, made.plugins, state)
    dense = model.get_submodule("4").dense()  # type: ignore[operator]
    assert not dense[state["4.full"] == 0].any()
    assert outcome.settled is None
    assert outcome.measurements["nonzeros"] < 0.9 * outcome.measurements["params"]


def test_a_stronger_pull_stores_less(bench: MakeWorkbench) -> None:
    made = bench()
    few, many = (run_trial(made, asked(SPARSE, folds, entropy=0.02), 0).measurements for folds in (3.0, 24.0))
    assert many["nonzeros"] < 0.8 * few["nonzeros"]
    assert many["bits"] < 0.9 * few["bits"]
    assert many["params"] == few["params"]
    assert many["macs"] == few["macs"]


@pytest.mark.parametrize("penalties", [{}, {"entropy": 0.02}], ids=["plain", "entropy"])
def test_a_learned_rank_settles_and_computes_the_same(
    bench: MakeWorkbench, tmp_path: Path, penalties: dict[str, float]
) -> None:
    store, made, point = ArtifactStore(tmp_path), bench(), asked(LEARNED, 12.0, **penalties)
    outcome = run_trial(made, point, 0, store)
    assert outcome.settled is not None
    ranks = {
        name: (each.values["rank"], outcome.settled.layers[name].values["rank"]) for name, each in point.layers.items()
    }
    assert all(1 <= after <= before for before, after in ranks.values())
    assert sum(after for _, after in ranks.values()) < 0.7 * sum(before for before, _ in ranks.values())
    files = files_of(outcome, store)
    model = build(made.dense, outcome.settled, made.layers, made.plugins, from_safetensors(files["model"]))
    assert measure(made.task, model, len(files["coded"])) == outcome.measurements
    assert outcome.measurements["params"] == count_params(model)


@BOTH
@pytest.mark.parametrize(
    ("further", "entropy"),
    [({}, 0.1), ({"optimizer": "sgd", "schedule": "one-cycle", "average": 0.9}, 0.0)],
    ids=["adamw", "sgd"],
)
def test_a_training_that_is_gone_on_with_ends_as_one_that_was_never_left(
    bench: MakeWorkbench, tmp_path: Path, form: str, further: dict[str, object], entropy: float
) -> None:
    made, point, store = bench(**further), asked(form, 6.0, entropy=entropy), ArtifactStore(tmp_path)
    checkpoint = None
    for budget in (0.5, 1.3):
        torch.rand(3)
        left = run_trial(made, point, 3, store, budget=budget, checkpoint=checkpoint)
        assert left.state is State.COMPLETE, left.reason
        (checkpoint,) = left.artifacts
    assert run_trial(made, point, 3, store, checkpoint=checkpoint) == run_trial(made, point, 3, store)


def test_frozen_layers_keep_their_weights(bench: MakeWorkbench, tmp_path: Path) -> None:
    made, store = bench(), ArtifactStore(tmp_path)
    model = build(made.dense, Point({}), made.layers, made.plugins, made.dense.state_dict())
    model.get_submodule("4").requires_grad_(False)
    frozen = replace(made, dense=model)
    state = from_safetensors(files_of(run_trial(frozen, asked(SPARSE, 12.0), 0, store), store)["model"])
    weight = made.dense.get_parameter("4.weight")
    assert torch.allclose(state["4.full"], weight)
    assert int((state["10.full"] == 0).sum()) > 0
