"""The second moment of a layer's inputs, against loops over patches; the model and the generator are left alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import Layer, output_basis
from rank_search.tasks import Supervised, columns_seen, input_moments
from rank_search.tasks.calibration import MOST_PATCHES
from rank_search.testing import GEOMETRIES


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_hand(layer: Layer, x: Tensor) -> Tensor:
    """One row for each position of the output, in the order in · kh · kw: the padded image, entry by entry."""
    if layer.kind == "linear":
        return torch.stack([row for example in x.reshape(len(x), -1, x.shape[-1]) for row in example])
    (top, bottom), (left, right) = layer.padding
    mode = {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode)
    padded = F.pad(x, (left, right, top, bottom), mode=mode)
    (kh, kw), (dy, dx), (sy, sx) = layer.kernel, layer.dilation, layer.stride
    rows = []
    for image in padded:
        for y in range(0, image.shape[1] - dy * (kh - 1), sy):
            for z in range(0, image.shape[2] - dx * (kw - 1), sx):
                entries = [
                    image[i, y + dy * a, z + dx * b]
                    for i in range(image.shape[0])
                    for a in range(kh)
                    for b in range(kw)
                ]
                rows.append(torch.stack(entries))
    return torch.stack(rows)


def patches(layer: Layer, x: Tensor, most: int = MOST_PATCHES) -> Tensor:
    return layer.columns(x, most)


@pytest.mark.parametrize("layer", GEOMETRIES, ids=[layer.name for layer in GEOMETRIES])
def test_patches_are_those_that_the_weight_is_multiplied_with(layer: Layer) -> None:
    x, weight = normal(*layer.inputs[0]).to(layer.dtype), normal(*layer.shape, seed=1).to(layer.dtype)
    found = patches(layer, x)
    torch.testing.assert_close(found, by_hand(layer, x))
    outputs = layer.operate(x, weight)
    flat = outputs.movedim(1, -1) if layer.kind == "conv2d" else outputs
    torch.testing.assert_close(found @ weight.flatten(1).T, flat.reshape(-1, len(weight)), rtol=1e-4, atol=1e-4)


def test_an_image_without_a_batch_is_a_batch_of_one() -> None:
    layer = Layer("x", "conv2d", (4, 3, 3, 3), padding=((1, 1), (1, 1)))
    x = normal(3, 5, 6)
    assert torch.equal(patches(layer, x), patches(layer, x[None]))


def test_of_a_batch_the_first_examples_are_enough() -> None:
    layer = Layer("x", "conv2d", (4, 3, 3, 3), padding=((1, 1), (1, 1)))
    x = normal(5, 3, 6, 5)
    assert torch.equal(patches(layer, x, 70), patches(layer, x[:2], 70))
    assert patches(layer, normal(1, 3, 40, 40), 70).shape == (1600, 27)  # never less than one example
    assert patches(Layer("x", "linear", (2, 3)), normal(50, 2, 3), 70).shape == (70, 3)


# ---- of a model ------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A convolution that runs twice, a linear layer on positions, one that never runs; dropout and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding="same", padding_mode="reflect")
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(3, 4)
        self.idle = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.twice(x))
        x = self.dropout(self.twice(torch.relu(x)))
        return self.fc(x.flatten(2).transpose(1, 2)).mean(1)  # type: ignore[no-any-return]


LAYERS = {name: Layer.of(getattr(Net(), name), name=name) for name in ("twice", "fc", "idle")}


class Shuffled:
    """Each pass in another order, by torch's global generator."""

    def __init__(self, count: int = 24, size: int = 4) -> None:
        self.images, self.targets, self.size = normal(count, 3, 6, 5), torch.arange(count) % 4, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for some in torch.randperm(len(self.images)).split(self.size):
            yield self.images[some], self.targets[some]


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net().train()


def task(model: nn.Module, batches: Iterable[Any]) -> Supervised:
    return Supervised(model, batches, batches, batches)


def seen(model: Net, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """What enters each layer in evaluation mode, by running the model by hand."""
    with torch.no_grad():
        rows: dict[str, list[Tensor]] = {"twice": [], "fc": []}
        model.eval()
        for x, _ in batches:
            again = torch.relu(model.norm(model.twice(x)))
            rows["twice"] += [by_hand(LAYERS["twice"], x), by_hand(LAYERS["twice"], again)]
            rows["fc"].append(model.twice(again).flatten(2).transpose(1, 2).flatten(0, 1))
    return {name: torch.cat(parts).double() for name, parts in rows.items()}


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_the_moment_is_the_mean_over_all_patches_of_the_first_batches(batches: int) -> None:
    model, data = net(), Shuffled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        first = [batch for _, batch in zip(range(batches), data, strict=False)]
    found = input_moments(task(model, data), model, LAYERS, batches, rng_seed=7)
    for name, X in seen(model, first).items():
        torch.testing.assert_close(found[name].double(), X.T @ X / len(X), rtol=1e-5, atol=1e-6)
        assert found[name].dtype == torch.float32


def test_more_batches_than_there_are_is_all_of_them() -> None:
    model, data = net(), Shuffled()
    found, full = (input_moments(task(model, data), model, LAYERS, batches) for batches in (100, 6))
    assert found.keys() == full.keys() == {"twice", "fc"}
    assert all(torch.equal(found[name], full[name]) for name in found)


def test_a_layer_that_never_runs_has_seen_nothing() -> None:
    model = net()
    assert "idle" not in input_moments(task(model, Shuffled()), model, LAYERS, 2)


def test_the_same_seed_gives_the_same_and_another_one_another() -> None:
    model, data = net(), Shuffled()
    torch.manual_seed(1)
    first = input_moments(task(model, data), model, LAYERS, 2, 3)
    torch.manual_seed(2)
    again, other = (input_moments(task(model, data), model, LAYERS, 2, seed) for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["twice"], other["twice"])


@pytest.mark.parametrize("training", [True, False])
def test_model_and_generator_are_as_before(training: bool) -> None:
    model = net().train(training)
    model.norm.train(not training)  # as where batch norms are frozen
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    input_moments(task(model, Shuffled()), model, LAYERS, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name for name, module in model.named_modules() if module.training != training} == {"norm"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


class Fails(Supervised):
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        super().loss(model, batch)
        raise ValueError("no labels here")


def test_errors_of_the_task_are_attributed_and_hooks_removed() -> None:
    model, data = net(), Shuffled()
    with pytest.raises(TaskError, match="raised ValueError: no labels here"):
        input_moments(Fails(model, data, data, data), model, LAYERS, 1)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_calibration_without_training_data_is_refused() -> None:
    model = net()
    with pytest.raises(TaskError, match="training data yielded no batch"):
        input_moments(task(model, []), model, LAYERS, 1)


# ---- short of data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [6, 20])
def test_where_the_data_says_nothing_the_weight_decides(count: int, caplog: pytest.LogCaptureFixture) -> None:
    """After the directions of outputs that the data has come the best ones for what is left of the weight."""
    n = 64
    left, right = (torch.linalg.qr(normal(n, n, seed=seed).double()).Q for seed in (1, 2))
    weight = ((left * torch.exp(-torch.arange(n) / 24)) @ right.T).float()
    model = nn.Sequential(nn.Linear(n, n, bias=False))
    model[0].weight.data.copy_(weight)
    X = normal(count, n, seed=3) * torch.exp(normal(n, seed=4))
    data = [(part, torch.zeros(len(part), dtype=torch.long)) for part in X.split(count // 2)]
    layers = {"0": Layer.of(model[0], "0")}
    moment = input_moments(task(model, data), model, layers, 2)["0"]
    assert f"Layer 0 has 64 inputs, and saw {count} columns of them; it takes more than 64." in caplog.text
    assert f"set calibration = {2 * 64 // count + 1} under [priors]" in caplog.text
    torch.testing.assert_close(moment, X.T.double() @ X.double() / count, rtol=1e-12, atol=0.0)
    basis = output_basis(weight, moment)
    seen = torch.linalg.qr((X @ weight.T).T.double()).Q  # n × count
    rest = torch.linalg.svdvals(weight.double() - seen @ (seen.T @ weight.double()))
    for rank in range(count, n, 7):
        kept = basis.left[:, :rank].double() @ basis.projected[:rank].double()
        error = float((weight.double() - kept).square().sum())
        assert error <= 1.001 * float(rest[rank - count :].square().sum())


def test_data_that_suffices_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    found = input_moments(task(model, Shuffled()), model, {"fc": LAYERS["fc"]}, 2)
    assert found["fc"].dtype == torch.float32
    assert not caplog.records


def test_columns_are_counted_as_moments_count_them() -> None:
    model, data = net(), Shuffled()
    counted = columns_seen(task(model, data), model, LAYERS, 3, rng_seed=7)
    assert counted == {"twice": 3 * 2 * 4 * 30, "fc": 3 * 4 * 30, "idle": 0}
    assert not any(module._forward_pre_hooks for module in model.modules())
