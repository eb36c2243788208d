"""Synthetic inputs: the statistics that batch norms stored come back, and the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import SourceError
from rank_search.layers import forward
from rank_search.sources import SynthesisSettings, gaussian_inputs, synthetic_inputs
from rank_search.sources.input_form import InputForm
from rank_search.sources.input_scale import fitting_scale
from rank_search.sources.norm_statistics import norm_inputs, norms_distance, stored_norms
from rank_search.sources.synthesis import _Batch
from rank_search.tasks import seeded
from tests.sources import small_networks

FEW = SynthesisSettings(batch_size=64, steps=30)


def distance(model: nn.Module, batch: Any) -> float:
    with torch.no_grad(), norm_inputs(stored_norms(model)) as seen:
        forward(model, batch)
    return float(norms_distance(seen, "kl", 0.0, 0.0))


@pytest.mark.parametrize("statistics", ["kl", "l2"])
@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (small_networks.images, (1, 2, 6, 6)),
        (small_networks.signals, (1, 2, 9)),
        (small_networks.volumes, (1, 1, 4, 4, 4)),
        (small_networks.vectors, (1, 7)),
    ],
)
def test_statistics_come_near_the_stored_ones(
    network: Callable[[], nn.Module], shape: tuple[int, ...], statistics: str
) -> None:
    model, example = network(), torch.zeros(shape)
    settings = SynthesisSettings(batch_size=64, steps=80, statistics=statistics, smoothness=0)  # type: ignore[arg-type]
    (made,) = synthetic_inputs(model, example, settings=settings, seed=0)
    (noise,) = gaussian_inputs(example, batches=1, batch_size=64, seed=0)
    assert made.shape == (64, *shape[1:])
    assert distance(model, made) < 0.4 * distance(model, noise)


def test_inputs_by_name_and_by_position() -> None:
    model, table = small_networks.TwoInputs(), torch.ones(2, 2)
    by_position = (torch.zeros(1, 1, 5, 5), torch.zeros(1, 5, dtype=torch.float64).float(), table)
    by_name = dict(zip(("image", "vector", "table"), by_position, strict=True))
    (first,) = synthetic_inputs(model, by_position, settings=FEW, seed=0)
    (second,) = synthetic_inputs(model, by_name, settings=FEW, seed=0)
    assert isinstance(first, tuple)
    assert first[0].shape == (64, 1, 5, 5)
    assert first[1].shape == (64, 5)
    assert first[2] is table
    assert list(second) == ["image", "vector", "table"]
    assert all(torch.equal(one, other) for one, other in zip(first, second.values(), strict=True))
    (noise,) = gaussian_inputs(by_name, batches=1, batch_size=64, seed=0)
    assert distance(model, second) < distance(model, noise)


def state(model: nn.Module) -> tuple[Any, ...]:
    return (
        {name: each.clone() for name, each in model.state_dict().items()},
        {name: each.requires_grad for name, each in model.named_parameters()},
        {name: each.grad for name, each in model.named_parameters()},
        {name: each.training for name, each in model.named_modules()},
        {name: len(each._forward_pre_hooks) + len(each._forward_hooks) for name, each in model.named_modules()},
        torch.get_rng_state(),
    )


def assert_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert one[1:-1] == other[1:-1]
    assert all(torch.equal(each, other[0][name]) for name, each in one[0].items())
    assert torch.equal(one[-1], other[-1])


@pytest.mark.parametrize("at_once", [None, 24])
def test_the_model_and_the_generator_stay_as_they_were(at_once: int | None) -> None:
    model = small_networks.images()
    model[1].train()  # type: ignore[index]
    model[0].weight.requires_grad_(False)  # type: ignore[index, union-attr]
    before = state(model)
    synthetic_inputs(model, torch.zeros(1, 2, 6, 6), settings=FEW.model_copy(update={"at_once": at_once}), seed=0)
    assert_same(state(model), before)


def test_they_do_when_the_model_raises_too() -> None:
    class Tired(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = small_networks.images(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 90:
                raise RuntimeError("no more")
            found: Tensor = self.inner(x)
            return found

    model = Tired().train()
    before = state(model)
    with pytest.raises(SourceError, match="forward raised RuntimeError: no more"):
        synthetic_inputs(model, torch.zeros(1, 2, 6, 6), settings=FEW, seed=0)
    assert_same(state(model), before)


def test_a_seed_repeats_them_and_batches_differ() -> None:
    model, example = small_networks.images(), torch.zeros(1, 2, 6, 6)
    settings = SynthesisSettings(batch_size=64, steps=5, batches=2)
    first, second = synthetic_inputs(model, example, settings=settings, seed=3)
    with seeded(77):
        again = synthetic_inputs(model, example, settings=settings, seed=3)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, synthetic_inputs(model, example, settings=settings, seed=4)[0])


@pytest.mark.parametrize("statistics", ["kl", "l2"])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(statistics: str) -> None:
    model, form = small_networks.images().double(), InputForm.of(torch.zeros(1, 2, 6, 6, dtype=torch.float64))
    whole = SynthesisSettings(
        batch_size=64,
        jitter=1,
        flips=True,
        statistics=statistics,
        slack=0.05,
        emphasis=1.0,
        class_evidence=0.3,
        smoothness=0.2,  # type: ignore[arg-type]
    )
    found = []
    for at_once in (None, 64, 24, 1):
        settings = whole.model_copy(update={"at_once": at_once})
        batch = _Batch(model, form, settings, torch.Generator().manual_seed(0))
        found.append(batch._gradients()[0])
    assert float(found[0].abs().max()) > 0
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


def test_classes_are_seen_in_them() -> None:
    model, form = small_networks.images(), InputForm.of(torch.zeros(1, 2, 6, 6))
    found = []
    for weight in (1e-6, 3.0):
        settings = FEW.model_copy(update={"class_evidence": weight})
        batch = _Batch(model, form, settings, torch.Generator().manual_seed(0))
        made = batch.made(lambda step: None)
        with torch.no_grad():
            found.append((batch._classes, float(F.cross_entropy(model(made), batch._classes))))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].bincount(minlength=3).min() > 10
    assert found[1][1] < found[0][1] - 0.05


def test_smoothness_leaves_less_variation() -> None:
    model, example = small_networks.images(), torch.zeros(1, 2, 6, 6)
    rough, smooth = (
        synthetic_inputs(model, example, settings=FEW.model_copy(update={"smoothness": weight}), seed=0)[0]
        for weight in (0.0, 3.0)
    )
    assert float(smooth.diff(dim=-1).abs().mean()) < 0.7 * float(rough.diff(dim=-1).abs().mean())


def test_progress_is_told_after_each_step() -> None:
    told: list[tuple[int, int]] = []
    settings = SynthesisSettings(batch_size=64, steps=3, batches=2)
    synthetic_inputs(
        small_networks.vectors(),
        torch.zeros(1, 7),
        settings=settings,
        seed=0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(step, 6) for step in range(1, 7)]


def test_they_calibrate_where_noise_does_not() -> None:
    """The second moment of what the last layer sees, against that of the data the statistics are of."""
    with seeded(0):
        model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 12), nn.BatchNorm1d(12))
        data = torch.rand(512, 6).square() @ torch.randn(6, 6) + 1
    model.train()
    for norm in (model[1], model[4]):
        norm.momentum = None  # type: ignore[assignment]
    model(data)
    model.eval()
    (made,) = synthetic_inputs(model, torch.zeros(1, 6), settings=SynthesisSettings(batch_size=64, steps=150), seed=0)
    (noise,) = gaussian_inputs(torch.zeros(1, 6), batches=1, batch_size=64, seed=0)

    def moment(x: Tensor) -> Tensor:
        with torch.no_grad():
            seen = model[:3](x)
        return seen.T @ seen / len(seen)

    true = moment(data)
    assert float((moment(made) - true).norm()) < 0.3 * float((moment(noise) - true).norm())


def test_without_norms_the_remedy_is_said() -> None:
    with pytest.raises(SourceError, match=r'no batch norms with running statistics.*"gaussian" or "none"'):
        synthetic_inputs(nn.Linear(3, 3), torch.zeros(1, 3), seed=0)


def test_norms_that_do_not_run_are_none() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.used(x))

    with pytest.raises(SourceError, match="None of the model's batch norms runs"):
        synthetic_inputs(Aside(), torch.zeros(1, 3), seed=0)


def test_statistics_that_are_no_numbers_are_told() -> None:
    model = small_networks.vectors()
    model[1].running_mean[0] = torch.nan  # type: ignore[index]
    with pytest.raises(SourceError, match="not finite"):
        synthetic_inputs(model, torch.zeros(1, 7), settings=SynthesisSettings(batch_size=64, steps=2), seed=0)


def test_shifts_and_flips_leave_examples_that_suit_the_network_wherever_they_are() -> None:
    model, example = small_networks.images(), torch.zeros(1, 2, 6, 6)
    still, moved = (
        synthetic_inputs(model, example, settings=FEW.model_copy(update=each | {"steps": 60}), seed=0)[0]
        for each in ({}, {"jitter": 2, "flips": True})
    )
    assert distance(model, moved.roll(2, -1).flip(-1)) < distance(model, still.roll(2, -1).flip(-1))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (128.0, 64.0), (0.5, 0.25)])
def test_inputs_are_made_on_the_scale_that_the_network_was_trained_on(mean: float, deviation: float) -> None:
    with seeded(0):
        model = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6, momentum=None), nn.ReLU())
        data = mean + deviation * torch.randn(64, 1, 6, 6)
    model.train()(data)
    found = fitting_scale(model.eval(), InputForm.of(data[:1]))
    assert found.deviation == pytest.approx(deviation, rel=1)
    assert found.mean == pytest.approx(mean, abs=deviation)
    (made,) = synthetic_inputs(model, data[:1], settings=FEW, seed=0)
    assert float(made.mean()) == pytest.approx(mean, abs=deviation)
    assert float(made.std()) == pytest.approx(deviation, rel=0.5)


def test_what_no_norm_depends_on_stays_noise() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_networks.vectors()

        def forward(self, x: Tensor, other: Tensor) -> list[Tensor]:
            return [self.inner(x), other.exp()]

    example = (torch.zeros(1, 7), torch.zeros(1, 2, 3, 2, 3, 2))
    settings = FEW.model_copy(update={"smoothness": 0.0, "jitter": 1, "flips": True})
    ((moved, other),) = synthetic_inputs(Beside(), example, settings=settings, seed=0)
    noise = InputForm.of(example).noise(64, torch.Generator().manual_seed(0))
    assert other.shape == (64, 2, 3, 2, 3, 2)
    assert (
        float((other - other.mean()).div(other.std()).sub((noise[1] - noise[1].mean()) / noise[1].std()).abs().max())
        < 1e-4
    )
    assert moved.shape == (64, 7)
