"""Steps that train a layer without its last components."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.layers import DirectBases, Factorization, Layer, factorize, load_plugin, take_inventory
from rank_search.point import Choice, Point
from rank_search.quantization import Quantizer, latents
from rank_search.tasks import Supervised, seeded
from rank_search.training import MODEL, Checkpoint, EntropyPenalty, FineTuning, Trainer, TrainingSettings, fine_tune
from rank_search.training.loss import TrainingLoss
from rank_search.training.ordered_steps import OrderedSteps
from rank_search.training.penalties import frames, frobenius, orthogonality
from tests.emptied import drawn

LINEAR = Layer("", "linear", (7, 9))
CONV = Layer("", "conv2d", (8, 6, 3, 3))
GROUPED = Layer("", "conv2d", (8, 3, 3, 3), groups=2)


def tails(form: Factorization, cut: dict[str, Tensor]) -> dict[str, int]:
    """How many places from the start of each of its modes are not all zero, of parameters that were cut."""
    return {
        f"{name}.{mode}": int(tensor.detach().movedim(mode, 0).reshape(tensor.shape[mode], -1).any(1).sum())
        for name, tensor in cut.items()
        for mode in range(tensor.dim())
    }


@pytest.mark.parametrize(
    ("form", "axes"),
    [
        (drawn("svd", CONV, rank=5), {"rank": ("left.1", "right.0")}),
        (drawn("cp", CONV, rank=5), {"rank": ("outer.1", "inner.1", "space.1")}),
        (
            drawn("tucker2", CONV, rank_out=5, rank_in=4),
            {"rank_out": ("outer.1", "core.0"), "rank_in": ("core.1", "inner.1")},
        ),
    ],
)
def test_a_step_trains_one_axis_up_to_a_rank(form: Factorization, axes: dict[str, tuple[str, ...]]) -> None:
    steps, seen = OrderedSteps(form, 1.0), Counter[tuple[str, int]]()
    whole = tails(form, dict(form.named_parameters()))
    with seeded(0):
        for _ in range(400):
            cut = steps.cut({})
            found = {place: count for place, count in tails(form, cut).items() if count < whole[place]}
            axis = next(name for name, places in axes.items() if set(places) == set(found))
            (rank,) = set(found.values())
            seen[axis, rank] += 1
            for name, tensor in cut.items():
                parameter = form.get_parameter(name).detach()
                assert torch.equal(tensor.detach(), torch.where(tensor.detach() != 0, parameter, 0.0))
    pairs = {(axis, rank) for axis in axes for rank in range(1, int(form.values[axis]))}
    assert set(seen) == pairs
    for count in seen.values():
        assert count / 400 == pytest.approx(1 / len(pairs), abs=0.05)


def test_every_pair_of_a_layer_and_a_rank_is_as_likely_and_what_is_gone_is_not_drawn() -> None:
    large, small = drawn("svd", CONV, rank=8), drawn("svd", LINEAR, rank=6)
    model, seen = nn.Sequential(large, small), Counter[str]()
    with torch.no_grad():
        small.get_parameter("left")[:, 4:] = 0
        small.get_parameter("right")[4:] = 0
    steps = OrderedSteps(model, 1.0)
    with seeded(0):
        for _ in range(1000):
            cut = steps.cut({})
            (name,) = {key.partition(".")[0] for key in cut}
            seen[name] += 1
            assert name == "0" or not cut["1.left"][:, 3].any(), "whole, as it is"
    assert seen["0"] / 1000 == pytest.approx(7 / (7 + 3), abs=0.05)


def test_an_axis_whose_components_do_not_add_up_is_trained_whole() -> None:
    """Buckets: fewer of them are another hash, and zeros in the last ones are no smaller model."""
    assert OrderedSteps(drawn("buckets", LINEAR, buckets=20), 1.0).cut({}) == {}


def test_a_tail_is_cut_in_every_group() -> None:
    form = drawn("svd", GROUPED, rank=3)
    with seeded(1):
        cut = OrderedSteps(form, 1.0).cut({})
    right = cut["right"].detach().flatten(1).any(1).view(2, 3)
    rank = int(right[0].sum())
    assert right.tolist() == [[place < rank for place in range(3)]] * 2


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_the_steps_is_ordered(share: float) -> None:
    steps = OrderedSteps(drawn("svd", CONV, rank=5), share)
    with seeded(0):
        ordered = sum(bool(steps.cut({})) for _ in range(800))
    assert ordered / 800 == pytest.approx(share, abs=0.06)


def test_what_has_no_rank_to_cut_is_trained_whole() -> None:
    assert OrderedSteps(nn.Linear(3, 3), 1.0).cut({}) == {}
    assert OrderedSteps(drawn("svd", CONV, rank=1), 1.0).cut({}) == {}


@pytest.mark.parametrize(
    ("name", "layer", "modes"),
    [
        ("svd", LINEAR, {"left": 1, "right": 0}),
        ("svd", CONV, {"left": 1, "right": 0}),
        ("svd", GROUPED, {"left": 1, "right": 0}),
        ("svd-spatial", CONV, {"across": 1, "down": 0}),
        ("cp", CONV, {"outer": 1, "inner": 1, "space": 1}),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_step_is_one_of_the_truncated_factors(
    name: str, layer: Layer, modes: dict[str, int], channels_last: bool
) -> None:
    form = drawn(name, layer, rank=5)
    inputs = torch.randn(3, 9) if layer.kind == "linear" else torch.randn(2, 6, 5, 5)
    if channels_last and inputs.dim() == 4:
        form, inputs = form.to(memory_format=torch.channels_last), inputs.to(memory_format=torch.channels_last)
    with seeded(0):
        cut = OrderedSteps(form, 1.0).cut({})
    assert {key: tensor.stride() for key, tensor in cut.items()} == {
        key: form.get_parameter(key).stride() for key in modes
    }
    left_over = {key: kept_places(cut[key], mode) for key, mode in modes.items()}
    ranks = {5 * len(places) // cut[key].shape[modes[key]] for key, places in left_over.items()}
    (rank,) = ranks
    assert 1 <= rank < 5
    small = type(form)(layer, rank=rank)
    state = {key: form.state_dict()[key].index_select(mode, left_over[key]) for key, mode in modes.items()}
    small.load_state_dict({**form.state_dict(), **state})
    expected, found = small(inputs), torch.func.functional_call(form, cut, (inputs,))
    assert torch.allclose(found, expected, atol=1e-4)
    weights = torch.randn(expected.shape)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    for key, parameter in form.named_parameters():
        slope = small.get_parameter(key).grad
        assert slope is not None
        whole = torch.zeros_like(parameter).index_copy(modes[key], left_over[key], slope) if key in modes else slope
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, whole, atol=1e-3)


def kept_places(tensor: Tensor, mode: int) -> Tensor:
    return tensor.detach().movedim(mode, 0).flatten(1).any(1).nonzero().flatten()


# ---- in a training ---------------------------------------------------------------------------------------


@pytest.fixture
def task() -> Supervised:
    with seeded(0):
        inputs = torch.randn(64, 12)
        teacher = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))
        batches = [(part, teacher(part).argmax(1)) for part in inputs.split(16)]
        return Supervised(nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)), batches, batches)


def in_factors(task: Supervised) -> nn.Module:
    layers = take_inventory(task.network, task.example()).layers
    bases = {name: DirectBases(task.network.get_parameter(f"{name}.weight")) for name in layers}
    point = Point({name: Choice("svd", {"rank": min(layer.shape)}) for name, layer in layers.items()})
    return factorize(task.network, point, layers, {"svd": load_plugin("svd")}, bases.__getitem__)


def trained(task: Supervised, ordered: float) -> nn.Module:
    model, settings = in_factors(task), TrainingSettings(epochs=60, learning_rate=1e-2)
    with seeded(0):
        assert fine_tune(task, model, FineTuning(settings, 1.0, ordered=ordered)) is None
    return model


@torch.no_grad()
def loss_without_tail(task: Supervised, model: nn.Module, rank: int) -> float:
    model.get_parameter("0.left")[:, rank:] = 0
    return sum(float(nn.functional.cross_entropy(model(x), y)) for x, y in task.selection_batches)


def test_ordered_training_puts_the_most_into_the_first_components(task: Supervised) -> None:
    plain, ordered = (trained(task, share) for share in (0.0, 0.5))
    for rank in (6, 4, 2):
        assert loss_without_tail(task, ordered, rank) < loss_without_tail(task, plain, rank)


def test_a_component_of_the_tail_has_no_gradient_in_its_step(task: Supervised) -> None:
    model = in_factors(task)
    loss = TrainingLoss(task, model, FineTuning(TrainingSettings(), ordered=1.0))
    batch = next(iter(task.training()))
    with seeded(3):
        cut = OrderedSteps(model, 1.0).cut({})
    with seeded(3):
        loss.of(batch, 0, 10).backward()  # type: ignore[no-untyped-call]
    assert set(cut) in ({"0.left", "0.right"}, {"2.left", "2.right"})
    for name, tensor in cut.items():
        slope = model.get_parameter(name).grad
        assert slope is not None
        assert torch.equal((slope != 0).any(), torch.tensor(True))
        assert not slope[tensor.detach() == 0].any()


def test_rounded_weights_are_cut_and_all_bits_counted(task: Supervised) -> None:
    model = in_factors(task)
    entropy = EntropyPenalty(Quantizer(latents(model), 4.0), 1e-4)
    settings = TrainingSettings(entropy_warmup=0)
    loss = TrainingLoss(task, model, FineTuning(settings, entropy=entropy, ordered=1.0))
    inputs, targets = next(iter(task.training()))
    with seeded(3):
        found = loss.of((inputs, targets), 0, 10)
    with seeded(3):
        rounded, bits = entropy.quantizer(latents(model))
        cut = OrderedSteps(model, 1.0).cut(rounded)
    assert any(not torch.equal(cut[name], rounded[name]) for name in rounded)
    expected = nn.functional.cross_entropy(torch.func.functional_call(model, cut, (inputs,)), targets) + 1e-4 * bits
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_penalties_are_of_the_whole_factors(task: Supervised) -> None:
    model = in_factors(task)
    settings = TrainingSettings(orthogonality_penalty="mc", weight_decay=0.1, weight_decay_on="product")
    batch = next(iter(task.training()))
    with torch.no_grad():
        next(iter(frames(model))).mul_(2)  # no longer orthonormal, so that there is something to pay for
    with seeded(3):
        found = TrainingLoss(task, model, FineTuning(settings, 0.5, ordered=1.0)).of(batch, 0, 10)
    with seeded(3):
        bare = TrainingLoss(task, model, FineTuning(TrainingSettings(weight_decay=0), ordered=1.0)).of(batch, 0, 10)
    penalties = 0.5 * orthogonality(model, "mc") + 0.1 * frobenius(model)
    assert float((found - bare).detach()) == pytest.approx(float(penalties.detach()), rel=1e-5)


@pytest.mark.parametrize("training", [{}, {"average": 0.9, "optimizer": "sgd"}])
def test_an_ordered_training_resumes_bit_for_bit(task: Supervised, training: dict[str, Any]) -> None:
    effort = FineTuning(TrainingSettings.model_validate({"epochs": 3, **training}), 0.1, ordered=0.5)

    def begun() -> Trainer:
        return Trainer(task, in_factors(task), effort)

    with seeded(5):
        whole = begun()
        whole.advance(3)
    with seeded(5):
        first = begun()
        first.advance(1.25)
        kept = Checkpoint.from_bytes(first.kept().to_bytes())
    model = in_factors(task)
    model.load_state_dict(kept.part(MODEL))
    second = Trainer.restored(task, model, effort, kept)
    second.advance(3)
    for name, tensor in whole.kept().part(MODEL).items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_without_a_share_nothing_is_drawn(task: Supervised) -> None:
    batch = next(iter(task.training()))
    loss = TrainingLoss(task, in_factors(task), FineTuning(TrainingSettings()))
    with seeded(4):
        found = loss.of(batch, 0, 10)
        after = torch.rand(3)
    with seeded(4):
        assert torch.equal(after, torch.rand(3))
    expected = nn.functional.cross_entropy(loss.model(batch[0]), batch[1])
    assert torch.equal(found, expected)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))  # type: ignore[no-any-return]


def test_batch_norms_take_their_statistics_from_the_whole_network(task: Supervised) -> None:
    with seeded(0):
        normed = replace(task, network=Normed())
    model = trained(normed, 1.0)
    with torch.no_grad():
        inputs = torch.cat([x for x, _ in normed.training()])
        hidden = model.get_submodule("first")(inputs)
    norm = model.get_submodule("norm")
    assert torch.allclose(norm.get_buffer("running_mean"), hidden.mean(0), atol=1e-4)


def test_tied_layers_are_cut_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.tanh(self.one(x)))  # type: ignore[no-any-return]

    network = Tied()
    layers = take_inventory(network, torch.randn(2, 6)).layers
    assert list(layers) == ["one"]
    model = factorize(
        network,
        Point({"one": Choice("svd", {"rank": 5})}),
        layers,
        {"svd": load_plugin("svd")},
        lambda name: DirectBases(network.get_parameter(f"{name}.weight")),
    )
    x = torch.randn(3, 6)
    with seeded(0):
        cut = OrderedSteps(model, 1.0).cut({})
        swapped = torch.func.functional_call(model, cut, (x,))
    assert set(cut) == {"one.left", "one.right"}
    weight = (cut["one.left"] @ cut["one.right"]).detach()
    by_hand = torch.tanh(x @ weight.T + network.one.bias) @ weight.T + network.two.bias
    assert torch.allclose(swapped, by_hand, atol=1e-5)
