"""A training that is cut off at any step goes on from a checkpoint on its way and ends the same, bit for bit."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError
from rank_search.layers import DirectBases, load_plugin, take_inventory, with_pools
from rank_search.point import Artifact, Choice, Outcome, Point, State
from rank_search.tasks import Supervised, generators, seeded, set_generators
from rank_search.training import Checkpoint, Keep, TrainingSettings
from rank_search.trials import TrialContext, run_trial
from tests.stripes_task import loader, stripes

EPOCHS, BATCHES = 3.0, 5
FORMS = ("svd", "tucker2", "shared-basis", "soft-threshold", "soft-rank")


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(24, 4),
    )


class Augmented:
    """Batches in an order, with noise and with flips that the three global generators draw anew in every pass."""

    def __init__(self, count: int) -> None:
        self.inputs, self.targets = stripes(count, 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = list(range(len(self.targets)))
        random.shuffle(order)
        for part in torch.tensor(order).split(30):
            noise = torch.from_numpy(np.random.standard_normal((len(part), 1, 8, 8))).float()
            inputs = self.inputs[part] + 0.1 * noise + 0.1 * torch.randn(len(part), 1, 8, 8)
            yield inputs.flip(-1) if random.random() < 0.5 else inputs, self.targets[part]


@pytest.fixture(scope="module")
def bench() -> Callable[..., TrialContext]:
    with seeded(0):
        made, selection = network(), loader(60, 2, 30)
    task = Supervised(made, Augmented(30 * BATCHES), selection, selection)
    plugins = {name: load_plugin(name) for name in FORMS}
    layers = with_pools(take_inventory(made, task.example()).layers, {"pool": ("3", "5")}, plugins)
    bases = {name: DirectBases(made.get_submodule(name).weight) for name in layers}

    def make(data: Any = None, **training: Any) -> TrialContext:
        given = TrainingSettings.model_validate({"epochs": EPOCHS, "learning_rate": 1e-2, **training})
        chosen = task if data is None else dataclasses.replace(task, training_batches=data)
        return TrialContext(chosen, made, layers, plugins, bases.__getitem__, given)

    return make


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def cut(last: str = "svd", **values: float) -> dict[str, Choice]:
    inner = Choice("tucker2", {"rank_out": 4, "rank_in": 3})
    return {"3": inner, "5": inner, "10": Choice(last, values or {"rank": 3})}


POOLED = {"3": Choice("shared-basis", {"rank": 4}), "5": Choice("shared-basis", {"rank": 4}), "10": Choice()}
PENALTIES = {"entropy": 0.3, "orthogonality": 0.3, "sparsity": 6.0}


def kept_by(made: TrialContext, point: Point, artifacts: ArtifactStore) -> tuple[Outcome, list[Artifact]]:
    """What comes of a trial that keeps a checkpoint after each step, and these."""
    kept: list[bytes] = []
    outcome = run_trial(made, point, 3, artifacts, keep=Keep(0.0, lambda data, epochs: kept.append(data)))
    return outcome, [artifacts.write("recovery", point.key, ".recovery", data) for data in kept]


@pytest.mark.parametrize(
    ("layers", "penalties", "training"),
    [
        (cut(), {}, {"optimizer": "sgd", "weight_decay": 0.01}),
        (cut(), {}, {"optimizer": "adamw", "schedule": "one-cycle"}),
        (cut(), {}, {"distillation": 0.5}),
        (cut(), PENALTIES, {"orthogonality_penalty": "srip", "orthogonality_decay": 0.4}),
        (cut(), {"orthogonality": 0.1}, {"ordered": 0.5, "average": 0.9}),
        (cut(), PENALTIES, {"average": 0.9, "distillation": 0.5, "ordered": 0.5}),
        (POOLED, {"orthogonality": 0.1}, {"average": 0.9}),
        (POOLED, {"entropy": 0.3}, {}),
        (cut("soft-threshold", folds=6.0), {"entropy": 0.1}, {}),
        (cut("soft-rank", rank=4, folds=6.0), {}, {"average": 0.5, "optimizer": "sgd"}),
    ],
    ids=["sgd", "adamw", "distilled", "penalties", "ordered", "all", "pool", "coded pool", "threshold", "soft rank"],
)
def test_a_training_that_is_cut_off_ends_the_same(
    bench: Callable[..., TrialContext],
    artifacts: ArtifactStore,
    layers: dict[str, Choice],
    penalties: dict[str, float],
    training: dict[str, Any],
) -> None:
    made, point = bench(**training), Point(layers, penalties)
    whole = run_trial(made, point, 3, artifacts)
    assert whole.state is State.COMPLETE, whole.reason
    keeping, kept = kept_by(made, point, artifacts)
    assert keeping == whole, "keeping a checkpoint changes nothing"
    assert len(kept) == EPOCHS * BATCHES
    for checkpoint in (kept[0], kept[6], kept[9], kept[-1]):
        torch.rand(7), random.random(), np.random.random()
        assert run_trial(made, point, 3, artifacts, checkpoint=checkpoint) == whole


class Killed(BaseException):
    """No error of the trial: nobody but the test catches it."""


def killed_after(made: TrialContext, steps: int) -> TrialContext:
    """The same, whose process is as good as dead when the training has taken so many further steps."""
    left = iter(range(steps))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad and next(left, None) is None:
            raise Killed
        return nn.functional.cross_entropy(outputs, targets)

    return dataclasses.replace(made, task=dataclasses.replace(made.task, loss_function=loss))


def test_killed_twice_it_ends_the_same(bench: Callable[..., TrialContext], artifacts: ArtifactStore) -> None:
    made, point = bench(average=0.9), Point(cut(), PENALTIES)
    kept: list[tuple[float, bytes]] = []
    checkpoint = None
    for steps in (4, 5):
        keep = Keep(0.0, lambda data, epochs: kept.append((epochs, data)))
        with pytest.raises(Killed):
            run_trial(killed_after(made, steps), point, 3, artifacts, checkpoint=checkpoint, keep=keep)
        checkpoint = artifacts.write("recovery", point.key, ".recovery", kept[-1][1])
    assert [epochs for epochs, _ in kept] == [step / BATCHES for step in range(1, 10)]
    assert run_trial(made, point, 3, artifacts, checkpoint=checkpoint) == run_trial(made, point, 3, artifacts)


def test_it_goes_on_from_a_rung_and_from_the_way_to_the_next(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    made, point = bench(), Point(cut(), {"entropy": 0.3})
    rung = run_trial(made, point, 3, artifacts, budget=1.0).artifacts[0]
    kept: list[bytes] = []
    keep = Keep(0.0, lambda data, epochs: kept.append(data))
    second = run_trial(made, point, 3, artifacts, budget=2.0, checkpoint=rung, keep=keep)
    between = artifacts.write("recovery", point.key, ".recovery", kept[1])
    assert Checkpoint.from_bytes(kept[1]).about["epochs"] == 1.4
    assert run_trial(made, point, 3, artifacts, budget=2.0, checkpoint=between) == second


def test_the_last_step_of_a_budget_is_not_past_it(bench: Callable[..., TrialContext], artifacts: ArtifactStore) -> None:
    """0.5 epochs are 2.5 batches, and three are taken."""
    made, point, kept = bench(), Point(cut()), list[float]()
    run_trial(made, point, 3, artifacts, budget=0.5, keep=Keep(0.0, lambda data, epochs: kept.append(epochs)))
    assert kept == [0.2, 0.4, 0.5]


def test_checkpoints_are_as_far_apart_as_is_said(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments, kept = iter(range(0, 1000, 60)), list[float]()  # each look at the clock is a minute later
    monkeypatch.setattr("rank_search.training.keeping.time.monotonic", lambda: float(next(moments)))
    made = bench(epochs=2.0)
    run_trial(made, Point(cut()), 3, artifacts, keep=Keep(150.0, lambda data, epochs: kept.append(epochs)))
    assert kept == [0.6, 1.2, 1.8]


def test_there_is_none_of_weights_that_are_not_finite(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    made, kept = bench(optimizer="sgd", learning_rate=1e30, gradient_clip=float("inf")), list[bytes]()
    outcome = run_trial(made, Point(cut()), 3, artifacts, keep=Keep(0.0, lambda data, epochs: kept.append(data)))
    assert outcome.state is State.DIVERGED
    for data in kept:
        assert all(each.isfinite().all() for each in Checkpoint.from_bytes(data).part("model").values())
    assert len(kept) < 3


@pytest.mark.parametrize("trouble", [ArtifactError("no room"), MemoryError()])
def test_one_that_cannot_be_written_stops_nothing(
    bench: Callable[..., TrialContext],
    artifacts: ArtifactStore,
    caplog: pytest.LogCaptureFixture,
    trouble: Exception,
) -> None:
    def write(data: bytes, epochs: float) -> None:
        raise trouble

    made, point = bench(epochs=0.4), Point(cut())
    with caplog.at_level(logging.WARNING, "rank_search"):
        outcome = run_trial(made, point, 3, artifacts, keep=Keep(0.0, write))
    assert outcome == run_trial(made, point, 3, artifacts)
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
        "The training goes on without a checkpoint after 0.2 epochs",
        "The training goes on without a checkpoint after 0.4 epochs",
    ]


def test_a_mistake_in_writing_is_no_lack_of_room(bench: Callable[..., TrialContext], artifacts: ArtifactStore) -> None:
    def write(data: bytes, epochs: float) -> None:
        raise TypeError("a bug")

    outcome = run_trial(bench(epochs=0.4), Point(cut()), 3, artifacts, keep=Keep(0.0, write))
    assert (outcome.state, outcome.reason) == (State.FAILED, "TypeError: a bug")


# ---- the generators --------------------------------------------------------------------------------------


def drawn() -> tuple[float, ...]:
    return (
        float(torch.rand(())),
        float(torch.randn(())),
        random.random(),
        random.gauss(0, 1),
        np.random.random(),
        np.random.standard_normal(),
    )


def test_all_global_generators_are_seeded_and_left_as_they_were() -> None:
    before = generators()
    with seeded(3):
        first = drawn()
    with seeded(3):
        assert drawn() == first
    with seeded(4):
        assert not set(drawn()) & set(first)
    after = generators()
    assert all(torch.equal(after[name], state) for name, state in before.items())


def test_generators_go_on_where_they_were() -> None:
    """Half of a pair of normal numbers, which NumPy and Python hold back, included."""
    with seeded(5):
        random.gauss(0, 1), np.random.standard_normal()
        kept = generators()
        first = drawn()
        drawn()
        set_generators(Checkpoint.from_bytes(Checkpoint({}, {"g": kept}).to_bytes()).part("g"))
        assert drawn() == first


def test_another_kind_of_generator_goes_on_too() -> None:
    usual = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(3))
        with seeded(5):
            kept, first = generators(), drawn()
            set_generators(kept)
            assert drawn() == first
    finally:
        np.random.set_bit_generator(usual)


def test_states_from_before_there_were_three_leave_the_others_alone() -> None:
    with seeded(5):
        older = {"cpu": torch.get_rng_state()}
        torch.rand(3)
        expected, numpy = random.Random(5).random(), np.random.RandomState(5).random()
        set_generators(older)
        assert (random.random(), np.random.random()) == (expected, numpy)
