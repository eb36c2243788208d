from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.coding import decode, encode
from rank_search.layers import Layer, load_plugin
from rank_search.point import Point
from rank_search.quantization import (
    CodingSettings,
    Quantizer,
    batch_statistics,
    canonize,
    latents,
    reestimate_batchnorm,
)
from rank_search.quantization.settings import PriorKind, RoundingKind, StepsKind
from rank_search.tasks import Supervised
from rank_search.training import EntropyPenalty, round_latents
from rank_search.training.latent_rounding import cheaper_neighbours, squared_gradients
from rank_search.trials import TrialContext, build, run_trial, trial


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0, 100), st.sampled_from(["laplace", "logistic", "density"]))
def test_cheaper_neighbours_never_cost_more_bits(seed: int, price: float, prior: PriorKind) -> None:
    torch.manual_seed(seed)
    exact = {"w": 3 * torch.randn(8, 5, dtype=torch.float64)}
    curvature = {"w": torch.rand(8, 5, dtype=torch.float64)}
    quantizer = Quantizer({"w": torch.randn(8, 5)}, 3, CodingSettings(prior=prior))
    chosen = cheaper_neighbours(exact, curvature, quantizer, price)["w"]
    nearest = exact["w"].round()
    assert bool((quantizer.bits({"w": chosen})["w"] <= quantizer.bits({"w": nearest})["w"]).all())
    assert float((chosen - exact["w"]).abs().max()) <= 1
    assert price > 0 or torch.equal(chosen, nearest)


def test_cheaper_neighbours_go_towards_zero_at_a_high_price_and_stay_at_high_curvature() -> None:
    exact = {"w": torch.tensor([[0.6, -1.7, 2.2, 0.0]], dtype=torch.float64)}
    quantizer = Quantizer({"w": torch.randn(4, 4)[:1]}, 3)
    free = cheaper_neighbours(exact, {"w": torch.zeros(1, 4, dtype=torch.float64)}, quantizer, 1.0)["w"]
    held = cheaper_neighbours(exact, {"w": torch.full((1, 4), 1e9, dtype=torch.float64)}, quantizer, 1.0)["w"]
    assert free.tolist() == [[0, -1, 2, 0]]
    assert held.tolist() == [[1, -2, 2, 0]]


def penalty(model: nn.Module, price: float, steps: StepsKind = "tensor") -> EntropyPenalty:
    torch.manual_seed(0)
    return EntropyPenalty(Quantizer(latents(model), 3, CodingSettings(steps=steps)), price)


@pytest.mark.parametrize("steps", ["tensor", "channel", "frequency"])
def test_rounding_by_rate_takes_fewer_bytes_and_ends_on_the_grids(task: Supervised, steps: StepsKind) -> None:
    lengths = []
    for kind in ("nearest", "rate"):
        model = copy.deepcopy(task.network)
        grids = round_latents(task, model, penalty(model, 1e-5, steps), kind)  # type: ignore[arg-type]
        lengths.append(len(encode(model.state_dict(), grids)))
        for name, grid in grids.items():
            tensor = model.get_parameter(name)
            assert torch.equal(grid.values(grid.round(tensor), tensor.dtype), tensor)
    assert lengths[1] < lengths[0]


def test_rounding_by_rate_without_a_price_is_to_the_nearest(task: Supervised) -> None:
    models = [copy.deepcopy(task.network) for _ in range(2)]
    for model, kind in zip(models, ("nearest", "rate"), strict=True):
        round_latents(task, model, penalty(model, 0.0), kind)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.parametrize("kind", ["rate", "grid"])
def test_roundings_are_compared_on_the_same_batches(task: Supervised, kind: RoundingKind) -> None:
    passes = []

    class Once(Supervised):
        def training(self) -> Iterable[object]:
            passes.append(None)
            return super().training()

    once = Once(task.network, task.training_batches, task.selection_batches)
    round_latents(once, copy.deepcopy(task.network), penalty(task.network, 1e-5), kind)
    assert len(passes) == 1, "what a shuffled pass gives is other batches each time"


def test_squared_gradients_are_of_the_loss_along_the_whole_numbers() -> None:
    model = nn.Linear(3, 2)
    batch = (torch.randn(8, 3), torch.randint(2, (8,)))
    task = Supervised(model, [batch, batch], [batch], [batch])
    grids = penalty(model, 1.0).quantizer.grids()
    found = squared_gradients(task, model, grids, [batch, batch])
    slope = torch.autograd.grad(task.loss(model, batch), model.weight)[0]
    expected = (slope.double() * grids["weight"].steps()).square()
    assert torch.allclose(found["weight"], expected)


# ---- batch norms -------------------------------------------------------------------------------------------


def norms() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)).eval()
    norm = model[1]
    for vector, low, high in ((norm.weight, 0.5, 2.0), (norm.running_var, 0.1, 9.0)):
        nn.init.uniform_(vector, low, high)  # type: ignore[arg-type]
    for vector in (norm.bias, norm.running_mean):
        nn.init.normal_(vector)  # type: ignore[arg-type]
    return model


def test_canonical_batch_norms_compute_nearly_the_same() -> None:
    model, x = norms(), torch.randn(4, 3, 5, 5)
    before = model(x)
    grids = canonize(model)
    assert set(grids) == {"1.weight", "1.bias"}
    difference = (model(x) - before).detach()
    assert float(difference.abs().mean()) < 0.05 * float(before.detach().abs().mean())
    assert torch.equal(model[1].running_mean, torch.zeros(6))  # type: ignore[arg-type]
    assert int(model[1].num_batches_tracked) == 0  # type: ignore[arg-type]
    for name, grid in grids.items():
        assert torch.equal(grid.values(grid.round(model.get_parameter(name)), torch.float32), model.get_parameter(name))


def test_a_norm_of_zeros_has_a_canonical_form() -> None:
    model = norms()
    nn.init.zeros_(model[1].weight)  # type: ignore[arg-type]
    canonize(model)
    assert torch.equal(model[1].weight, torch.zeros(6))  # type: ignore[arg-type]


def test_batch_statistics_are_not_kept(task: Supervised) -> None:
    model = copy.deepcopy(task.network)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    batch = next(iter(task.training()))
    with batch_statistics(model):
        inside = float(task.loss(model, batch).detach())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert model.get_submodule("1").momentum == 0.1
    reestimate_batchnorm(Supervised(model, [batch], [batch], [batch]), model)
    assert inside == pytest.approx(float(task.loss(model, batch).detach()), rel=0.05)


# ---- whole trials ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coding",
    [
        {"steps": "channel", "grouping": "tensor"},
        {"steps": "component", "prior": "logistic"},
        {"steps": "frequency", "prior": "density", "rounding": "rate"},
    ],
)
def test_the_decoded_model_is_what_is_measured(
    workbench: Callable[..., TrialContext],
    point: Callable[..., Point],
    coding: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = replace(workbench(epochs=1), coding=CodingSettings.model_validate(coding))
    written: list[bytes] = []

    def kept(state: dict[str, Tensor], grids: object = None) -> bytes:
        written.append(encode(state, grids))  # type: ignore[arg-type]
        return written[-1]

    monkeypatch.setattr(trial, "encode", kept)
    outcome = run_trial(made, point(entropy=0.1), 0)
    assert outcome.measurements["bits"] == 8 * len(written[-1])
    model = build(made.dense, point(entropy=0.1), made.layers, made.plugins, decode(written[-1]))
    found = made.task.evaluate(model, made.task.selection())
    assert outcome.measurements["error"] == found["error"]
    vectors = {name for name, each in model.named_parameters() if each.dim() == 1}
    assert {name for name in vectors if len(model.get_parameter(name).unique()) > 1}


def test_factors_that_need_not_be_stored_are_not_rounded() -> None:
    factorized = load_plugin("svd")(Layer.of(nn.Linear(5, 4)), rank=2)
    factorized.stored = lambda: [factorized.right]  # type: ignore[method-assign]
    assert set(latents(factorized)) == {"right", "bias"}
