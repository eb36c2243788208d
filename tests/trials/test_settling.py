"""What training has emptied is dropped: in every trial, before anything is measured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.coding import Grid, decode, encode
from rank_search.errors import ContractError
from rank_search.layers import (
    DirectBases,
    Factorization,
    Layer,
    count_params,
    factorize,
    groups_of,
    load_plugin,
    opened_inventory,
    weight_of,
)
from rank_search.point import Choice, Point, State
from rank_search.quantization import CodingSettings, Quantizer, component_modes, latents
from rank_search.trials import TrialContext, build, measure, run_trial, trial
from rank_search.trials.settling import Settled, fold, settled, settled_costs
from tests.emptied import Cores
from tests.trials.test_trial import MakePoint, MakeWorkbench, rebuilt

BECAME = Choice("svd", {"rank": 1})


@pytest.fixture
def poor(workbench: MakeWorkbench) -> Callable[..., TrialContext]:
    """Of a network whose last weight has rank 1: what the SVD adds to that is rounded to zero."""

    def make(coding: CodingSettings | None = None, **training: Any) -> TrialContext:
        made = workbench(**{"epochs": 0, "entropy_start_bits": 8, **training})
        dense = copy.deepcopy(made.dense)
        with torch.no_grad():
            last = dense.get_submodule("10").get_parameter("weight")
            last.copy_(torch.outer(last[:, 0], last[0]))
        bases = {name: DirectBases(weight_of(dense, name)) for name in made.layers}
        coding = coding or CodingSettings()
        return replace(made, dense=dense, bases=bases.__getitem__, dense_measured={}, coding=coding)

    return make


def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "settled", lambda model, trained, round_to: trained)


@pytest.mark.parametrize("steps", ["tensor", "channel", "component", "frequency"])
def test_a_trial_is_measured_and_kept_as_it_has_settled(
    poor: Callable[..., TrialContext], point: MakePoint, tmp_path: Path, steps: Any
) -> None:
    made, asked = poor(CodingSettings(steps=steps)), point(entropy=0.1)
    outcome = run_trial(made, asked, 0, ArtifactStore(tmp_path))
    assert outcome.state is State.COMPLETE, outcome.reason
    assert outcome.settled == replace(asked, layers={**asked.layers, "10": BECAME})
    model, coded = rebuilt(made, outcome.settled, outcome, tmp_path)
    assert measure(made.task, model, len(coded)) == outcome.measurements
    assert outcome.measurements["params"] == count_params(model)
    decoded = decode(coded)
    assert all(torch.equal(tensor, decoded[name]) for name, tensor in model.state_dict().items())
    assert {name: dict(cost) for name, cost in outcome.settled_costs.items()} == {
        "10": {"params": 96 + 4 + 4, "macs": 96 + 4}
    }


@pytest.mark.parametrize("steps", ["tensor", "channel", "component", "frequency"])
def test_a_settled_trial_computes_the_same_at_lower_costs(
    poor: Callable[..., TrialContext], point: MakePoint, monkeypatch: pytest.MonkeyPatch, steps: Any
) -> None:
    made = poor(CodingSettings(steps=steps))
    small = run_trial(made, point(entropy=0.1), 0).measurements
    unsettled(monkeypatch)
    large = run_trial(made, point(entropy=0.1), 0).measurements
    assert large["params"] - small["params"] == 2 * (96 + 4)
    assert large["macs"] - small["macs"] == 2 * (96 + 4)
    assert small["bits"] < large["bits"]
    assert small["error"] == large["error"]


def test_a_trial_in_which_nothing_is_empty_is_as_if_nothing_were_dropped(
    workbench: MakeWorkbench, point: MakePoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = workbench(epochs=0.5), point(entropy=0.1)
    outcome = run_trial(made, asked, 0, ArtifactStore(tmp_path / "one"))
    assert outcome.settled is None
    unsettled(monkeypatch)
    assert run_trial(made, asked, 0, ArtifactStore(tmp_path / "other")) == outcome


class Folded(Cores):
    def fold(self, times: int) -> None:  # type: ignore[override]
        """Something else than the contract means by it."""


def test_a_plugin_that_means_something_else_by_fold_is_named() -> None:
    form = Folded(Layer("", "conv2d", (4, 3, 3, 3)), rank=2)
    with pytest.raises(ContractError, match=r"Folded.fold\(\) for .* raised TypeError: .* argument: 'times'"):
        fold(nn.Sequential(form))


def test_a_trial_settles_at_multiples_of_round_to(poor: Callable[..., TrialContext], point: MakePoint) -> None:
    outcome = run_trial(replace(poor(), round_to=2), point(entropy=0.1), 0)
    assert outcome.settled is not None
    assert outcome.settled.layers["10"] == Choice("svd", {"rank": 2})


def test_a_trial_goes_on_from_what_was_asked_not_from_what_it_settled_at(
    poor: Callable[..., TrialContext], point: MakePoint, tmp_path: Path
) -> None:
    made, store = poor(epochs=1.0, learning_rate=1e-6), ArtifactStore(tmp_path)
    at_once = run_trial(made, point(entropy=0.1), 0)
    begun = run_trial(made, point(entropy=0.1), 0, store, budget=0.5)
    assert begun.settled is not None
    (checkpoint,) = begun.artifacts
    ended = run_trial(made, point(entropy=0.1), 0, store, checkpoint=checkpoint)
    assert (ended.settled, ended.measurements) == (at_once.settled, at_once.measurements)


# ---- any network -------------------------------------------------------------------------------------------


class Sentences(nn.Module):
    """Opened, split, grouped and tied layers in one network."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 12)
        self.steps = nn.GRU(12, 12, batch_first=True)
        self.along = nn.Conv1d(12, 12, 3, padding=1, groups=2)
        self.qkv = nn.Linear(12, 36)
        self.again = self.qkv  # one layer under two names
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.along(self.steps(self.tokens(ids))[0].mT).mT
        q, k, v = self.qkv(found).chunk(3, -1)
        out: Tensor = self.head(q * k + v)
        return out


IDS = torch.arange(24).view(3, 8) % 20


def emptied(model: nn.Module, layers: Any, plugins: Any, point: Point) -> nn.Module:
    bases = {name: DirectBases(weight_of(model, name), groups=groups_of(model, name)) for name in layers}
    made = factorize(model, point, layers, plugins, bases.__getitem__)
    for form in made.modules():
        if isinstance(form, Factorization):
            with torch.no_grad():
                form.get_parameter("left")[:, [1, 3]] = 0
    return made


def test_every_kind_of_layer_settles_and_computes_the_same() -> None:
    torch.manual_seed(0)
    model, plugins = Sentences().eval(), {"svd": load_plugin("svd")}
    layers = opened_inventory(model, IDS, split=["qkv:3"]).layers
    assert {"steps.recurrent_0", "qkv.2of3", "along", "head"} <= layers.keys()
    asked = Point({name: Choice("svd", {"rank": 5}) for name in layers}, {"entropy": 0.1})
    made = emptied(model, layers, plugins, asked)
    found = settled(made, Settled(asked, made.state_dict()))
    assert found.point == Point({name: Choice("svd", {"rank": 3}) for name in layers}, {"entropy": 0.1})
    assert found.grids is None
    small = build(model, found.point, layers, plugins, found.state)
    assert torch.allclose(small(IDS), made(IDS), rtol=1e-4, atol=1e-5)
    assert found.state.keys() == made.state_dict().keys()
    assert settled(small, Settled(found.point, small.state_dict())).point == found.point
    costs = settled_costs(asked, found.point, layers, plugins)
    assert costs["qkv.2of3"] == {"params": 3 * 24 + 12, "macs": 24 * 3 * 24}
    assert settled_costs(asked, asked, layers, plugins) == {}


def test_grids_are_those_of_what_is_left() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10))
    layers, plugins = opened_inventory(model, torch.zeros(2, 12)).layers, {"svd": load_plugin("svd")}
    asked = Point({"0": Choice("svd", {"rank": 5})})
    made = emptied(model, layers, plugins, asked)
    coding = CodingSettings(steps="component")
    quantizer = Quantizer(latents(made), 6, coding, component_modes(made))
    with torch.no_grad():
        quantizer.log_step.add_(torch.linspace(0, 1, len(quantizer.log_step)))  # so that steps differ
    grids = quantizer.round_(latents(made))
    found = settled(made, Settled(asked, made.state_dict(), grids))
    assert found.grids is not None
    left = grids["0.left"].exponents[:, [0, 2, 4]]
    assert torch.equal(found.grids["0.left"].exponents, left)
    assert torch.equal(grids["0.left"].exponents[:, [0, 2, 4]], left)  # given grids stay as they were
    decoded = decode(encode(found.state, found.grids))
    assert all(torch.equal(decoded[name], tensor) for name, tensor in found.state.items() if tensor.dim() > 1)


def test_modes_that_are_rounded_as_frequencies_stay_whole() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3))
    layers = opened_inventory(model, torch.zeros(1, 4, 5, 5)).layers
    asked = Point({"0": Choice("cores", {"rank": 3})})
    made = emptied_cores(model, layers, asked)
    state = made.state_dict()
    grid = Grid(torch.zeros(1, 1, 3, 3, dtype=torch.int32), frequencies=True)
    kept = settled(made, Settled(asked, state, {"0.last": grid}))
    assert kept.point == asked
    whole = settled(made, Settled(asked, state, {"0.last": Grid(torch.zeros(1, 1, 1, 1, dtype=torch.int32))}))
    assert whole.point == Point({"0": Choice("cores", {"rank": 2})})


def emptied_cores(model: nn.Module, layers: Any, asked: Point) -> nn.Module:
    bases = DirectBases(weight_of(model, "0"))
    made = factorize(model, asked, layers, {"cores": Cores}, lambda _: bases)
    with torch.no_grad():
        for name in ("first", "last"):
            nn.init.normal_(made.get_submodule("0").get_parameter(name))
        made.get_submodule("0").get_parameter("last")[..., 1] = 0
    return made
