"""Tasks that are wrong in one way each, for the small study's file to name."""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from stripes import batches, network
from torch import Tensor, nn

import rank_search as rs

NOT_A_FUNCTION = 7


def sound() -> rs.Supervised:
    """Nothing is wrong with this one; its network is not trained."""
    torch.manual_seed(0)
    parts = [batches(80, seed) for seed in (1, 2, 3)]
    return rs.Supervised(network(), *parts)


def unlucky() -> rs.Supervised:
    raise ValueError("no luck today")


def a_list() -> list[int]:
    return [1, 2]


class _Task(rs.Task):
    """The sound task, to be spoiled in one method."""

    def __init__(self) -> None:
        self.sound = sound()

    def model(self) -> nn.Module:
        return self.sound.model()

    def example(self) -> Tensor:
        return self.sound.example()

    def training(self) -> Iterable[object]:
        return self.sound.training()

    def selection(self) -> Iterable[object]:
        return self.sound.selection()

    def test(self) -> Iterable[object]:
        return self.sound.test()

    def loss(self, model: nn.Module, batch: object) -> Tensor:
        return self.sound.loss(model, batch)

    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        return self.sound.evaluate(model, batches)


class ModelRaises(_Task):
    def model(self) -> nn.Module:
        raise FileNotFoundError("weights.pt")


class ModelIsADict(_Task):
    def model(self) -> nn.Module:
        return dict(self.sound.model().state_dict())  # type: ignore[return-value]


class ExampleRaises(_Task):
    def example(self) -> Tensor:
        raise RuntimeError("no example at hand")


class ExampleDoesNotFit(_Task):
    def example(self) -> Tensor:
        return torch.zeros(1, 3, 8, 8)


class ExampleIsAList(_Task):
    def example(self) -> Tensor:
        return [[0.0]]  # type: ignore[return-value]


class NoTrainingData(_Task):
    def training(self) -> Iterable[object]:
        return []


class NoSelectionData(_Task):
    def selection(self) -> Iterable[object]:
        return []


class NoTestData(_Task):
    def test(self) -> Iterable[object]:
        return []


class SelectionRaises(_Task):
    def selection(self) -> Iterator[object]:
        yield from self.sound.selection_batches
        raise OSError("the data's disk is gone")


class LossPerExample(_Task):
    def loss(self, model: nn.Module, batch: object) -> Tensor:
        inputs, targets = batch  # type: ignore[misc]
        return nn.functional.cross_entropy(model(inputs), targets, reduction="none")


class LossRaises(_Task):
    def loss(self, model: nn.Module, batch: object) -> Tensor:
        raise KeyError("label")


class LossWithoutGradient(_Task):
    def loss(self, model: nn.Module, batch: object) -> Tensor:
        return self.sound.loss(model, batch).detach()


class LossIsNan(_Task):
    def loss(self, model: nn.Module, batch: object) -> Tensor:
        return self.sound.loss(model, batch) * torch.nan


class MetricIsNan(_Task):
    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        return {"error": float("nan")}


class MetricRaises(_Task):
    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        raise ZeroDivisionError("no classes")


class MetricIsANumber(_Task):
    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        return 0.5  # type: ignore[return-value]


class MetricIsATensor(_Task):
    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        return {"error": torch.zeros(2)}  # type: ignore[dict-item]


class MetricOfOurs(_Task):
    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        return {"error": 0.5, "bits": 3.0}


class WeightsWithNan(_Task):
    def model(self) -> nn.Module:
        model = self.sound.network
        with torch.no_grad():
            model.get_submodule("second").get_parameter("weight")[3, 2, 1, 1] = torch.nan
        return model


class NothingToFactorize(_Task):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Flatten())


class HoldsALock(_Task):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class TestRaises(_Task):
    def test(self) -> Iterable[object]:
        raise PermissionError("the test data is secret")


def wants_an_answer(answer: int) -> rs.Supervised:
    return sound()


def lacking() -> rs.Task:
    """A task of a package that no other machine has."""
    module = types.ModuleType("only_on_the_driver")
    sys.modules[module.__name__] = module
    kind = type("Lacking", (_Task,), {"__module__": module.__name__})
    module.Lacking = kind  # type: ignore[attr-defined]
    return kind()


class _WhoTests(_Task):
    """Measures which process it was measured in."""

    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        return {**self.sound.evaluate(model, batches), "process": float(os.getpid())}


def who_tests() -> rs.Task:
    return _WhoTests()


class _TestsAreHarder(_Task):
    """It makes no mistake on its selection data: their targets are what it predicts."""

    def selection(self) -> Iterable[object]:
        with torch.no_grad():
            return [(inputs, self.sound.model()(inputs).argmax(1)) for inputs, _ in self.sound.selection()]

    def selection_examples(self) -> int | None:
        return self.sound.selection_examples()


def tests_are_harder() -> rs.Task:
    return _TestsAreHarder()


class _TestsBadly(_Task):
    """Its test data cannot be read any longer once the file `gone` is there."""

    def test(self) -> Iterable[object]:
        if Path("gone").exists():
            raise OSError("the disk with the test data is away")
        return self.sound.test()


def tests_badly() -> rs.Task:
    return _TestsBadly()


class _CountsThreads(_Task):
    """Measures how many threads it was measured with."""

    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        return {**self.sound.evaluate(model, batches), "threads": float(torch.get_num_threads())}


def counts_threads() -> rs.Task:
    return _CountsThreads()


class _Frozen(_Task):
    """Everything of its network is frozen: a checkpoint that was loaded to be used."""

    def model(self) -> nn.Module:
        return self.sound.model().requires_grad_(False)


def frozen() -> rs.Task:
    return _Frozen()


class _NeverTrains(_Task):
    """Its loss fails whenever a factorized model is trained, and not at the rehearsal."""

    def loss(self, model: nn.Module, batch: object) -> Tensor:
        if any(isinstance(module, rs.Factorization) for module in model.modules()):
            raise RuntimeError("no luck with this one")
        return super().loss(model, batch)


def never_trains() -> rs.Task:
    return _NeverTrains()


def without_test_data() -> rs.Supervised:
    torch.manual_seed(0)
    return rs.Supervised(network(), batches(80, 1), batches(80, 2))


class _Counted(_Task):
    def selection_examples(self) -> int:
        return 1234


def counted() -> rs.Task:
    return _Counted()
