from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import DirectBases, Layer, load_plugin
from rank_search.quantization import Quantizer, latents, reestimate_batchnorm
from rank_search.tasks import Supervised, seeded
from rank_search.training import Diverged, EntropyPenalty, FineTuning, TrainingSettings, fine_tune
from rank_search.training.average import Average


def train(task: Supervised, model: nn.Module, rng_seed: int = 0, **given: Any) -> Diverged | None:
    effort = {name: given.pop(name) for name in ("orthogonality", "entropy") if name in given}
    with seeded(rng_seed):
        return fine_tune(task, model, FineTuning(TrainingSettings.model_validate(given), **effort))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Counting:
    """Batches that count how many were taken; with or without a length."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches, self.taken = batches, 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.taken += 1
            yield batch


class Sized(Counting):
    def __len__(self) -> int:
        return len(self.batches)


@pytest.fixture
def batches(task: Supervised) -> list[Any]:
    return [*task.selection_batches, *task.test_batches]


def with_training(task: Supervised, batches: Any) -> Supervised:
    return dataclasses.replace(task, training_batches=batches)


@pytest.mark.parametrize(("epochs", "steps"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4), (1.6, 7)])
def test_epochs_may_be_fractions(task: Supervised, batches: list[Any], epochs: float, steps: int) -> None:
    counted = Sized(batches)
    train(with_training(task, counted), copy.deepcopy(task.network), epochs=epochs)
    assert counted.taken == steps


def test_seven_tenths_of_an_epoch_of_ten_batches_are_seven(task: Supervised, batches: list[Any]) -> None:
    counted = Sized([batches[0]] * 10)
    train(with_training(task, counted), copy.deepcopy(task.network), epochs=0.7)
    assert counted.taken == 7


def test_batches_of_data_without_a_length_are_counted_in_one_pass(task: Supervised, batches: list[Any]) -> None:
    counted = Counting(batches)
    train(with_training(task, counted), copy.deepcopy(task.network), epochs=0.5)
    assert counted.taken == 4 + 2


def test_training_without_data_is_an_error(task: Supervised) -> None:
    with pytest.raises(TaskError, match="training data yielded no batch"):
        train(with_training(task, []), copy.deepcopy(task.network))


def test_the_same_seed_gives_the_same_weights(task: Supervised) -> None:
    models = [copy.deepcopy(task.network) for _ in range(3)]
    for model, rng_seed in zip(models, (1, 1, 2), strict=True):
        train(task, model, rng_seed, epochs=0.5)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_a_seed_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with seeded(7):
        torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "learning_rate": 0.02}, {"schedule": "constant"}])
def test_training_recovers_a_disturbed_network(task: Supervised, settings: dict[str, Any]) -> None:
    model = copy.deepcopy(task.network)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.7 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    before = mean_loss(task, model)
    assert train(task, model, epochs=2, **settings) is None
    assert mean_loss(task, model) < 0.7 * before
    assert not any(module.training for module in model.modules())


@torch.no_grad()
def mean_loss(task: Supervised, model: nn.Module) -> float:
    losses = [task.loss(model.eval(), batch) for batch in task.selection()]
    return float(torch.stack(losses).mean())


def test_sgd_without_momentum_is_plain_descent() -> None:
    model, batch = nn.Linear(3, 2), (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    task, start = Supervised(model, [batch], [batch], [batch]), model.weight.detach().clone()
    slope = torch.autograd.grad(task.loss(model, batch), model.weight)[0]
    train(task, model, epochs=1, optimizer="sgd", momentum=0, learning_rate=0.1, schedule="constant")
    assert torch.allclose(model.weight, start - 0.1 * slope)


def test_a_loss_that_is_not_finite_is_reported_with_its_place(task: Supervised, batches: list[Any]) -> None:
    losses = iter([1.0, 1.0, 1.0, 1.0, 1.0, math.nan])
    broken = dataclasses.replace(
        with_training(task, batches), loss_function=lambda outputs, targets: outputs.sum() * 0 + next(losses)
    )
    diverged = train(broken, copy.deepcopy(task.network), epochs=2)
    assert diverged == Diverged("the loss was nan in epoch 2, step 6 of 8")


def test_weights_broken_by_the_last_step_are_reported(task: Supervised, batches: list[Any]) -> None:
    steep = dataclasses.replace(
        with_training(task, batches[:1]), loss_function=lambda outputs, targets: 1e3 * outputs.square().mean()
    )
    settings = {"optimizer": "sgd", "learning_rate": 3e38, "gradient_clip": math.inf}
    diverged = train(steep, copy.deepcopy(task.network), **settings)
    assert diverged is not None
    assert "0.weight" in diverged.reason
    assert "not finite after step 1" in diverged.reason


def factorized() -> tuple[nn.Module, Layer]:
    torch.manual_seed(0)
    dense = nn.Linear(12, 10)
    layer = Layer.of(dense)
    factorization = load_plugin("svd")(layer, rank=4)
    factorization.fit(dense.weight.detach(), DirectBases(dense.weight))
    with torch.no_grad():
        factorization.bias.copy_(dense.bias)  # a fit leaves it as it is allocated
    return factorization, layer


BATCH = (torch.randn(16, 12, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10)


def deviation(frame: Tensor) -> float:
    return float((frame.T @ frame - torch.eye(frame.shape[1])).norm().detach())


def test_the_orthogonality_penalty_keeps_frames_orthonormal() -> None:
    ends = []
    for strength in (0.0, 30.0):
        model, _ = factorized()
        task = Supervised(model, [BATCH], [BATCH], [BATCH])
        assert train(task, model, epochs=60, learning_rate=1e-2, orthogonality=strength) is None
        ends.append(deviation(model.left))  # type: ignore[arg-type]
    assert ends[1] < 0.3 * ends[0]


@pytest.mark.parametrize(
    ("effort", "decayed"),
    [({}, {"left", "right"}), ({"orthogonality": 1e-9}, {"right"}), ({"entropy": 1e-12}, set())],
)
def test_weight_decay_spares_biases_frames_and_latents(effort: dict[str, Any], decayed: set[str]) -> None:
    model, _ = factorized()
    task = Supervised(model, [BATCH], [BATCH], [BATCH])
    if "entropy" in effort:
        effort = {"entropy": EntropyPenalty(Quantizer(latents(model), 12), effort["entropy"])}
    undecayed = copy.deepcopy(model)
    train(Supervised(undecayed, [BATCH], [BATCH], [BATCH]), undecayed, **copy.deepcopy(effort))
    train(task, model, weight_decay=100.0, **effort)
    changed = {
        name
        for (name, a), b in zip(model.named_parameters(), undecayed.parameters(), strict=True)
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-6)
    }
    assert changed == decayed


def test_decay_of_the_product_is_a_step_along_its_gradient() -> None:
    """One step of plain SGD with and without: the difference is −rate · decay · ∂½‖W‖²_F."""
    models = [factorized()[0] for _ in range(2)]
    part = models[0]
    slopes = torch.autograd.grad(part.dense().square().sum() / 2, [part.left, part.right])  # type: ignore[operator]
    given = {"optimizer": "sgd", "momentum": 0, "learning_rate": 0.1, "gradient_clip": math.inf}
    for model, decay in zip(models, (0.0, 0.5), strict=True):
        train(
            Supervised(model, [BATCH], [BATCH], [BATCH]), model, weight_decay=decay, weight_decay_on="product", **given
        )
    plain, decayed = (dict(model.named_parameters()) for model in models)
    assert torch.equal(plain["bias"], decayed["bias"])
    for name, slope in zip(("left", "right"), slopes, strict=True):
        assert torch.allclose(decayed[name] - plain[name], -0.1 * 0.5 * slope, atol=1e-6)


@pytest.mark.parametrize(
    ("effort", "dense_decays", "factors_decay"),
    [({}, True, True), ({"orthogonality": 1e-9}, True, True), ({"entropy": 1e-12}, False, False)],
)
def test_weight_decay_acts_on_products_and_on_the_rest(
    effort: dict[str, Any], dense_decays: bool, factors_decay: bool
) -> None:
    ends = []
    for decay in (0.0, 1.0):
        model = nn.Sequential(factorized()[0], nn.Linear(10, 10))
        with seeded(0):
            nn.init.normal_(model[1].weight)  # type: ignore[arg-type]
        given = dict(effort)
        if "entropy" in effort:
            with seeded(1):
                given["entropy"] = EntropyPenalty(Quantizer(latents(model), 12), effort["entropy"])
        task = Supervised(model, [BATCH], [BATCH], [BATCH])
        train(task, model, epochs=5, learning_rate=1e-2, weight_decay=decay, weight_decay_on="product", **given)
        ends.append([float(model[0].dense().norm().detach()), float(model[1].weight.norm().detach())])  # type: ignore[operator, operator, union-attr, arg-type]
    (product, dense), (decayed_product, decayed_dense) = ends
    assert (decayed_product < 0.99 * product) == factors_decay
    assert (decayed_dense < 0.99 * dense) == dense_decays


# ---- averaged weights ------------------------------------------------------------------------------------


def trajectory(task: Supervised, model: nn.Module, **given: Any) -> list[dict[str, Tensor]]:
    """The weights after every step, without an average."""
    seen: list[dict[str, Tensor]] = []

    def look() -> None:
        seen.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})

    train(looking(task, look), model, **given)
    look()
    return seen[1:]


def looking(task: Supervised, look: Callable[[], None]) -> Supervised:
    """The task, whose loss looks before each step."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        look()
        return task.loss_function(outputs, targets)

    return dataclasses.replace(task, loss_function=loss)


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_average_is_the_weighted_mean_of_the_weights_after_each_step(task: Supervised, decay: float) -> None:
    still = with_training(task, [*task.selection_batches, *task.test_batches])
    given = {"epochs": 2, "learning_rate": 1e-2}
    after = trajectory(still, copy.deepcopy(task.network), **given)
    model = copy.deepcopy(task.network)
    assert train(still, model, average=decay, **given) is None
    shares = [decay ** (len(after) - 1 - step) for step in range(len(after))]
    for name, parameter in model.named_parameters():
        mean = sum(share * each[name].double() for share, each in zip(shares, after, strict=True)) / sum(shares)
        assert torch.allclose(parameter.double(), mean, atol=1e-6)  # type: ignore[arg-type]
        assert not torch.allclose(parameter, after[-1][name], atol=1e-5)


@pytest.mark.parametrize("batches", [None, 1])
def test_batch_norm_statistics_go_with_the_averaged_weights(task: Supervised, batches: int | None) -> None:
    still = with_training(task, [*task.selection_batches, *task.test_batches])
    model = copy.deepcopy(task.network)
    train(still, model, epochs=1, learning_rate=2e-2, average=0.9, batchnorm_batches=batches)
    again = copy.deepcopy(model)
    reestimate_batchnorm(still, again, batches=batches)
    assert same(model, again)
    assert not any(module.training for module in model.modules())


def test_frozen_weights_stay_frozen_under_an_average(task: Supervised) -> None:
    model = copy.deepcopy(task.network)
    model.get_submodule("4").requires_grad_(False)
    train(task, model, epochs=0.5, average=0.9)
    assert torch.equal(model.get_parameter("4.weight"), task.network.get_parameter("4.weight"))
    assert not torch.equal(model.get_parameter("0.weight"), task.network.get_parameter("0.weight"))


def test_what_a_form_moves_itself_is_not_averaged() -> None:
    """A threshold that rises: its average would be lower, and weights that it has put to zero were back."""
    form = load_plugin("soft-threshold")(Layer("", "linear", (3, 4)), folds=5)
    average = Average(form, 0.99)
    assert set(average.tensors) == {"full", "bias"}
    for step, s in enumerate((-70.0, -10.0, -1.0), 1):
        with torch.no_grad():
            form.get_parameter("s").fill_(s)
            form.get_parameter("full").fill_(1.0)
        average.update(step)
    average.put()
    assert float(form.get_parameter("s").detach()) == -1.0


def test_average_of_half_precision_weights_is_kept_in_single() -> None:
    model = nn.Linear(1, 1, bias=False).bfloat16()
    average, seen = Average(model, 0.999), []
    for step in range(1, 201):
        with torch.no_grad():
            model.weight.fill_(1.0 if step % 2 else 1.5)
        seen.append(float(model.weight.detach()))
        average.update(step)
    shares = [0.999 ** (200 - step) for step in range(1, 201)]
    mean = sum(share * weight for share, weight in zip(shares, seen, strict=True)) / sum(shares)
    assert float(average.tensors["weight"]) == pytest.approx(mean, abs=1e-5)
    average.put()
    assert float(model.weight.detach()) == 1.25
    assert model.weight.dtype == torch.bfloat16


def test_entropy_penalty_lowers_the_bits(task: Supervised) -> None:
    spent = []
    for price in (1e-9, 1e-3):
        model = copy.deepcopy(task.network)
        with seeded(0):
            quantizer = Quantizer(latents(model), 5)
        train(task, model, epochs=2, entropy_learning_rate=0.1, entropy=EntropyPenalty(quantizer, price))
        spent.append(float(quantizer(latents(model))[1].detach()))
    assert spent[1] < 0.6 * spent[0]


def test_training_with_a_quantizer_leaves_an_ordinary_model(task: Supervised) -> None:
    model = copy.deepcopy(task.network)
    train(task, model, epochs=0.3, entropy=EntropyPenalty(Quantizer(latents(model), 4), 1e-6))
    assert [type(module) for module in model.modules()] == [type(module) for module in task.network.modules()]
    assert list(model.state_dict()) == list(task.network.state_dict())
    assert all(isinstance(parameter, nn.Parameter) and parameter.is_leaf for parameter in model.parameters())
    assert same(copy.deepcopy(model), model)


def test_loss_under_the_entropy_penalty_sees_rounded_weights() -> None:
    model, seen = nn.Linear(12, 10, bias=False), []

    def watch(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(outputs.detach())
        return nn.functional.cross_entropy(outputs, targets)

    task = Supervised(model, [BATCH], [BATCH], [BATCH], watch)
    quantizer = Quantizer(latents(model), 2)
    rounded = quantizer(latents(model))[0]["weight"].detach()
    train(task, model, epochs=1, entropy=EntropyPenalty(quantizer, 1e-6))
    assert torch.allclose(seen[0], BATCH[0] @ rounded.T, atol=1e-6)


def test_frozen_weights_stay_frozen(task: Supervised) -> None:
    model = copy.deepcopy(task.network)
    model.get_submodule("4").requires_grad_(False)
    train(task, model, epochs=0.3)
    assert torch.equal(model.get_parameter("4.weight"), task.network.get_parameter("4.weight"))
    assert not torch.equal(model.get_parameter("0.weight"), task.network.get_parameter("0.weight"))


# ---- batch norm ----------------------------------------------------------------------------------------


def test_reestimated_statistics_are_the_average_over_one_pass() -> None:
    norm = nn.BatchNorm1d(3, momentum=0.3)
    batches = [(torch.randn(8, 3) * 4 + 2, torch.zeros(8, dtype=torch.long)) for _ in range(5)]
    reestimate_batchnorm(Supervised(norm, batches, batches, batches), norm)
    means = torch.stack([x.mean(0) for x, _ in batches])
    variances = torch.stack([x.var(0) for x, _ in batches])
    assert torch.allclose(norm.running_mean, means.mean(0), atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, variances.mean(0), rtol=1e-5)  # type: ignore[arg-type]
    assert norm.momentum == 0.3
    assert not norm.training


@pytest.mark.parametrize(("batches", "taken"), [(1, 1), (3, 3), (9, 5), (None, 5)])
def test_statistics_reestimated_on_a_few_batches_are_those_of_these_batches(batches: int | None, taken: int) -> None:
    norm = nn.BatchNorm1d(3)
    made = [(torch.randn(8, 3) * 4 + number, torch.zeros(8, dtype=torch.long)) for number in range(5)]
    counted = Counting(made)
    reestimate_batchnorm(Supervised(norm, counted, made, made), norm, batches=batches)
    assert counted.taken == taken
    means = torch.stack([x.sum(0) / 8 for x, _ in made[:taken]])
    variances = torch.stack([(x - x.mean(0)).square().sum(0) / 7 for x, _ in made[:taken]])
    assert torch.allclose(norm.running_mean, means.sum(0) / taken, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, variances.sum(0) / taken, rtol=1e-5)  # type: ignore[arg-type]


def test_reestimation_changes_no_weight_and_drops_nothing(task: Supervised) -> None:
    model = copy.deepcopy(task.network)
    states: list[bool] = []
    model.get_submodule("9").register_forward_hook(lambda module, *_: states.append(module.training))
    reestimate_batchnorm(task, model)
    assert states
    assert not any(states)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), task.network.parameters(), strict=True))


def test_reestimation_restores_momenta_even_if_the_data_fails(task: Supervised) -> None:
    model = copy.deepcopy(task.network)
    with pytest.raises(TaskError):
        reestimate_batchnorm(with_training(task, []), model)
    assert model.get_submodule("1").momentum == 0.1


def test_reestimation_of_a_model_without_batch_norm_reads_no_data() -> None:
    counted = Counting([BATCH])
    reestimate_batchnorm(Supervised(nn.Linear(12, 10), counted, [BATCH], [BATCH]), nn.Linear(12, 10))
    assert counted.taken == 0


def test_reestimated_statistics_repair_a_change_of_weights(task: Supervised) -> None:
    model = copy.deepcopy(task.network)
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(9)
        model.get_parameter("0.bias").add_(5)
    assert mean_loss(task, model) > 2 * mean_loss(task, task.network)
    reestimate_batchnorm(task, model)
    assert mean_loss(task, model) == pytest.approx(mean_loss(task, task.network), abs=0.02)


def test_quantizer_steps_are_learned_for_three_quarters_and_then_settle(task: Supervised, batches: list[Any]) -> None:
    model = copy.deepcopy(task.network)
    quantizer, before = Quantizer(latents(model), 4), list[Tensor]()
    seen = looking(
        with_training(task, Sized(batches[:1] * 8)), lambda: before.append(quantizer.log_step.detach().clone())
    )
    assert not train(seen, model, entropy=EntropyPenalty(quantizer, 1e-3), epochs=1.0)
    learned, settled = before[:6], [*before[6:], quantizer.log_step]
    assert len(before) == 8
    assert all(not torch.equal(one, other) for one, other in pairwise(learned))
    assert all(torch.equal(settled[0], each) for each in settled)
    stored = torch.stack([grid.steps().log().float().flatten() for grid in quantizer.grids().values()]).flatten()
    assert torch.allclose(settled[0], stored, atol=1e-5)
    assert not torch.allclose(learned[-1], stored, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_half_precision_weights_are_trained_like_others(optimizer: str) -> None:
    """Not to NaN, where a gradient is zero: the usual ε is zero in float16."""
    found = {}
    for dtype in (torch.float32, torch.float16):
        with seeded(0):
            network, inputs = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(60, 6)
        targets = inputs[:, :3].argmax(1)
        network[0].weight.data[0], network[0].bias.data[0] = 0.0, -1.0  # never active: no gradient
        batches = [(inputs.to(dtype), targets)]
        task = Supervised(network.to(dtype), batches, batches)
        settings = TrainingSettings.model_validate({"epochs": 100, "optimizer": optimizer, "learning_rate": 1e-2})
        assert fine_tune(task, task.network, FineTuning(settings)) is None
        found[dtype] = task.evaluate(task.network, batches)["error"]
    assert found[torch.float16] == pytest.approx(found[torch.float32], abs=0.1)
    assert found[torch.float16] < 0.2
