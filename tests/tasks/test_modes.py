"""In which mode a loss is asked for, batches that norms refuse, and numbers that are no ordinary floats."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.layers import take_inventory
from rank_search.quantization import latents, reestimate_batchnorm, task_inputs
from rank_search.tasks import Supervised, Task, as_for_loss, has_test, input_moments
from rank_search.training import FineTuning, TrainingSettings, check_task, fine_tune

Pairs = list[tuple[Tensor, Tensor]]


def data(*sizes: int, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 8, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes]


class Auxiliary(nn.Module):
    """Two outputs in training mode, one in evaluation; dropout as a module, and called as a function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.norm, self.dropout = nn.Linear(8, 24), nn.BatchNorm1d(24), nn.Dropout(0.5)
        self.head, self.auxiliary = nn.Linear(24, 3), nn.Linear(24, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        h = self.dropout(F.dropout(self.norm(self.enter(x)).relu(), 0.5, self.training))
        if self.training:
            self.calls += 1  # type: ignore[operator]
            return self.head(h), self.auxiliary(h)
        return self.head(h)


class TwoHeads(Task):
    """A loss that works in training mode alone."""

    def __init__(self, model: nn.Module, batches: Pairs) -> None:
        self.network, self.batches, self.modes = model, batches, list[bool]()

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Tensor:
        return self.batches[0][0][:1]

    def training(self) -> Pairs:
        return self.batches

    def selection(self) -> Pairs:
        return self.batches

    def test(self) -> Pairs:
        return self.batches

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.modes.append(model.training)
        main, auxiliary = model(batch[0])
        return F.cross_entropy(main, batch[1]) + 0.4 * F.cross_entropy(auxiliary, batch[1])

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, float]:
        assert not model.training
        return {"error": float(torch.cat([model(x).argmax(1) != y for x, y in batches]).double().mean())}


@pytest.mark.parametrize("calibration", [2, 0])
def test_a_loss_is_always_asked_for_in_training_mode(calibration: int, tmp_path: Path) -> None:
    from rank_search.run import run_study
    from rank_search.study import Study

    task = TwoHeads(Auxiliary().eval(), data(32, 32))
    tables = {
        "study": {"name": "s", "trials": 3},
        "task": {"factory": "(in memory)"},
        "priors": {"calibration": calibration},
        "training": {"epochs": 1},
        "folder": tmp_path,
    }
    found = run_study(Study.model_validate(tables), task=task, store=str(tmp_path / "s.sqlite"))
    with rs.Store.open(str(tmp_path / "s.sqlite")) as store:
        assert {each.state.value for each in store.trials(store.study("s"))} == {"complete"}
    assert task.modes
    assert all(task.modes)
    assert found.front


def test_nothing_is_trained_where_a_loss_is_only_looked_at() -> None:
    model = Auxiliary().eval()
    before = copy.deepcopy(model.state_dict())
    x = data(32)[0][0]
    with torch.no_grad():
        expected = model(x)
        with as_for_loss(model):
            main, _ = model(x)
    assert torch.equal(main, expected)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def dropped(v: Tensor) -> dict[str, Callable[[bool], Any]]:
    """What drops in training, by the ways in which it is written."""
    attended, weights = v.reshape(1, 4, 8), (torch.eye(8).repeat(3, 1), torch.zeros(24), None, None, False, 0.5)
    heads: tuple[Any, ...] = (attended, attended, attended, 8, 2, *weights, torch.eye(8), torch.zeros(8))
    return {
        "F, by position": lambda on: F.dropout(v, 0.5, on, False),
        "F, by name": lambda on: F.dropout1d(v, training=on),
        "torch": lambda on: torch.dropout(v, 0.9, on),
        "torch, by name": lambda on: torch.dropout(v, p=0.9, train=on),
        "torch, alpha": lambda on: torch.alpha_dropout(v, 0.5, on),
        "torch, features": lambda on: torch.feature_dropout(v, 0.5, on),
        "torch, features, alpha": lambda on: torch.feature_alpha_dropout(v, 0.5, on),
        "torch, in place": lambda on: torch.dropout_(v.clone(), 0.5, on),
        "attention, by position": lambda on: F.scaled_dot_product_attention(v, v, v, None, 0.5 if on else 0.0),
        "attention, by name": lambda on: F.scaled_dot_product_attention(v, v, v, dropout_p=0.5 if on else 0.0),
        "heads, by position": lambda on: F.multi_head_attention_forward(*heads, on)[0],
        "heads, by name": lambda on: F.multi_head_attention_forward(*heads, training=on)[0],
    }


@pytest.mark.parametrize("way", dropped(torch.zeros(4, 8)))
def test_dropout_that_is_called_as_a_function_drops_nothing(way: str) -> None:
    v = data(4)[0][0]
    call = dropped(v)[way]
    torch.manual_seed(0)
    with torch.no_grad():
        expected = call(False)
        assert not torch.equal(call(True), expected)
        with as_for_loss(nn.Module()):
            assert torch.equal(call(True), expected)


def test_moments_are_those_of_evaluation() -> None:
    model, batches = Auxiliary().eval(), data(32, 32)
    layers = {name: each for name, each in take_inventory(model, batches[0][0][:1]).layers.items() if name == "head"}
    found = input_moments(TwoHeads(model, batches), model, layers, 2)["head"]
    with torch.no_grad():
        h = torch.cat([model.norm(model.enter(x)).relu() for x, _ in batches])
    torch.testing.assert_close(found, h.T @ h / 64)


def test_norms_take_statistics_of_a_model_with_two_heads() -> None:
    model, batches = Auxiliary().eval(), data(32, 32)
    reestimate_batchnorm(TwoHeads(model, batches), model)
    with torch.no_grad():
        means = torch.stack([model.enter(x).mean(0) for x, _ in batches]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, means)
    assert float(model.calls) == 0
    assert not model.training


def test_pack_model_runs_on_what_the_loss_gives_the_model() -> None:
    model, batches = Auxiliary().eval(), data(32, 32)
    feed, seen = task_inputs(TwoHeads(model, batches), batches)
    outputs: list[Any] = []
    with model.register_forward_hook(lambda module, inputs, found: outputs.append(found)):
        for each in seen:
            feed(model, each)
    assert all(torch.equal(found, model(x)) for found, (x, _) in zip(outputs, batches, strict=True))
    assert float(model.calls) == 0


# ---- a batch of one --------------------------------------------------------------------------------------


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()


def test_training_data_that_ends_in_a_batch_of_one(caplog: pytest.LogCaptureFixture) -> None:
    model, settings = normed(), TrainingSettings(epochs=2, average=0.9)
    one, without = data(32, 32, 1), data(32, 32)
    task = Supervised(model, one, one)
    check_task(task, model, settings)
    with caplog.at_level(logging.INFO):
        assert fine_tune(task, model, FineTuning(settings)) is None
    assert "batch of one example" in caplog.text
    reestimate_batchnorm(task, model)
    same = copy.deepcopy(model)
    reestimate_batchnorm(Supervised(same, without, without), same)
    assert all(torch.equal(each, same.state_dict()[name]) for name, each in model.state_dict().items())


def test_training_data_that_begins_with_a_batch_of_one_is_rehearsed_on_the_next() -> None:
    check_task(Supervised(normed(), data(1, 8), data(8)), normed(), TrainingSettings(epochs=1))


def test_training_data_of_nothing_but_batches_of_one_is_refused() -> None:
    model, task = normed(), Supervised(normed(), data(1, 1), data(8))
    for run in (
        lambda: check_task(task, model, TrainingSettings(epochs=1)),
        lambda: fine_tune(task, model, FineTuning(TrainingSettings(epochs=2))),
        lambda: reestimate_batchnorm(task, model),
    ):
        with pytest.raises(TaskError, match="more than one example"):
            run()


# ---- numbers ---------------------------------------------------------------------------------------------


def test_moments_of_halves_are_summed_wider() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(2048, 3)).eval()
    x = 4 * torch.randn(64, 3, 16, 16)
    pairs = [(x.half(), torch.zeros(64, dtype=torch.long))]
    half = copy.deepcopy(model).half()
    layers = take_inventory(half, x[:1].half()).layers
    found = input_moments(Supervised(half, pairs, pairs, loss_function=lambda o, t: o.float().mean()), half, layers, 1)
    plain = x.half().float()
    rows = F.unfold(plain, 3, padding=1).transpose(1, 2).flatten(0, 1)[:8192]
    torch.testing.assert_close(found["0"], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-3)


class Filter(nn.Module):
    """A complex filter between two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.filter, self.head = nn.Linear(8, 32), nn.Parameter(torch.ones(17) + 0j), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.irfft(torch.fft.rfft(self.enter(x)) * self.filter, n=32).relu())  # type: ignore[no-any-return]


def test_complex_parameters_are_kept_under_the_entropy_penalty(tmp_path: Path) -> None:
    batches = data(32, 32)
    assert latents(Filter()).keys() == {"enter.weight", "enter.bias", "head.weight", "head.bias"}
    found = rs.compress(
        Filter().eval(),
        train=batches,
        selection=batches,
        trials=4,
        store=tmp_path / "s.sqlite",
        training={"epochs": 1},
        search={"objectives": ("error", "bits"), "entropy": {"low": 0.1, "high": 1.0}},
        priors={"calibration": 1},
        coding={"rounding": "nearest"},
    )
    with rs.Store.open(found.store) as store:
        trials = store.trials(store.study("compressed"))
    assert {each.state.value for each in trials} == {"complete"}
    assert min(each.measurements["bits"] for each in trials) < 0.6 * found.dense["bits"]


# ---- test data -------------------------------------------------------------------------------------------


def test_a_task_may_have_no_test_data() -> None:
    assert has_test(Supervised(normed(), data(8), data(8), data(8)))
    assert not has_test(Supervised(normed(), data(8), data(8)))
    assert not has_test(Supervised(normed(), data(8), data(8), []))
