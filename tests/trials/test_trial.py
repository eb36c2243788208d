from __future__ import annotations

import copy
import dataclasses
import errno
import logging
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.coding import decode, from_safetensors
from rank_search.errors import ArtifactError, TaskError, TrialError
from rank_search.layers import count_params
from rank_search.point import Choice, Outcome, Point, State
from rank_search.quantization import reestimate_batchnorm
from rank_search.tasks import Supervised
from rank_search.trials import (
    LatencySettings,
    TrialContext,
    build,
    dense_measurements,
    measure,
    run_trial,
    test_measurements,
)

MakePoint = Callable[..., Point]
MakeWorkbench = Callable[..., TrialContext]


def rebuilt(made: Any, point: Point, outcome: Outcome, folder: Path) -> tuple[nn.Module, bytes]:
    artifacts = {artifact.kind: ArtifactStore(folder).read(artifact) for artifact in outcome.artifacts}
    state = from_safetensors(artifacts["model"])
    return build(made.dense, point, made.layers, made.plugins, state), artifacts["coded"]


@pytest.mark.parametrize("penalties", [{}, {"orthogonality": 0.1, "entropy": 0.3}])
def test_a_trials_artifacts_alone_give_its_measurements(
    workbench: MakeWorkbench, point: MakePoint, tmp_path: Path, penalties: dict[str, float]
) -> None:
    made, chosen = workbench(epochs=1.0), point(**penalties)
    outcome = run_trial(made, chosen, 0, ArtifactStore(tmp_path))
    assert outcome.state is State.COMPLETE, outcome.reason
    model, coded = rebuilt(made, chosen, outcome, tmp_path)
    assert measure(made.task, model, len(coded)) == outcome.measurements
    decoded = decode(coded)
    assert all(torch.equal(tensor, decoded[name]) for name, tensor in model.state_dict().items())
    assert outcome.measurements["params"] == count_params(model) < count_params(made.dense)
    endings = {"model": ".safetensors", "coded": ".coded"}
    assert {artifact.kind for artifact in outcome.artifacts} == set(endings)
    for artifact in outcome.artifacts:
        assert artifact.location == f"{chosen.key[:16]}-{artifact.sha256[:16]}{endings[artifact.kind]}"


def test_the_entropy_penalty_makes_a_model_much_smaller_at_little_error(
    workbench: MakeWorkbench, point: MakePoint
) -> None:
    made = workbench(epochs=4, learning_rate=3e-3)
    dense = dense_measurements(made)
    small = run_trial(made, point(entropy=0.1), 0).measurements
    assert small["error"] <= dense["error"] + 0.03
    # A network this small spends half of its bits on vectors and names.
    assert small["bits"] < dense["bits"] / 12


def test_bits_without_the_entropy_penalty_are_those_of_floats(workbench: MakeWorkbench, point: MakePoint) -> None:
    made, chosen = workbench(epochs=0), point()
    measured = run_trial(made, chosen, 0).measurements
    statistics = 2 * (16 + 24)
    assert 32 * (measured["params"] + statistics) <= measured["bits"] <= 32 * (measured["params"] + statistics) + 4000


def test_a_trial_is_deterministic(workbench: MakeWorkbench, point: MakePoint, tmp_path: Path) -> None:
    made, chosen = workbench(epochs=0.5), point(entropy=0.1, orthogonality=0.1)
    torch.manual_seed(1)
    first = run_trial(made, chosen, 5, ArtifactStore(tmp_path))
    torch.manual_seed(2)
    torch.rand(3)
    before = torch.get_rng_state()
    assert run_trial(made, chosen, 5, ArtifactStore(tmp_path)) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert run_trial(made, chosen, 6, ArtifactStore(tmp_path)) != first


def test_a_trial_does_not_change_its_context(workbench: MakeWorkbench, point: MakePoint) -> None:
    made = workbench(epochs=0.3)
    before = {name: tensor.clone() for name, tensor in made.dense.state_dict().items()}
    run_trial(made, point(entropy=0.1), 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.dense.state_dict().items())


@pytest.mark.parametrize("penalties", [{}, {"orthogonality": 1.0}])
def test_a_point_that_changes_nothing_is_not_trained(
    workbench: MakeWorkbench, dense_point: MakePoint, penalties: dict[str, float]
) -> None:
    made = workbench(epochs=3)
    assert run_trial(made, dense_point(**penalties), 0).measurements == dense_measurements(made)


def test_a_dense_point_with_entropy_is_coded(workbench: MakeWorkbench, dense_point: MakePoint) -> None:
    made = workbench(epochs=0.5)
    dense, coded = dense_measurements(made), run_trial(made, dense_point(entropy=0.1), 0).measurements
    assert coded["bits"] < dense["bits"] / 4
    assert coded["params"] == dense["params"]


def test_a_trial_of_no_epochs_only_rounds_the_model(workbench: MakeWorkbench, dense_point: MakePoint) -> None:
    made = workbench(epochs=0, entropy_start_bits=8)
    dense, rounded = dense_measurements(made), run_trial(made, dense_point(entropy=0.1), 0).measurements
    assert rounded["error"] == pytest.approx(dense["error"], abs=0.02)
    assert 0.2 < rounded["bits"] / dense["bits"] < 0.4


def test_averaged_weights_are_measured_with_batch_norm_statistics_of_their_own(
    workbench: MakeWorkbench, point: MakePoint, tmp_path: Path
) -> None:
    task = workbench().task
    still = dataclasses.replace(task, training_batches=[*task.training()])
    made = workbench(still, epochs=2, learning_rate=2e-2, average=0.9)
    outcome = run_trial(made, point(), 0, ArtifactStore(tmp_path))
    model, coded = rebuilt(made, point(), outcome, tmp_path)
    assert measure(still, model, len(coded)) == outcome.measurements
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reestimate_batchnorm(still, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    last = run_trial(workbench(still, epochs=2, learning_rate=2e-2), point(), 0, ArtifactStore(tmp_path))
    trained, _ = rebuilt(made, point(), last, tmp_path)
    assert not any(torch.equal(a, b) for a, b in zip(model.parameters(), trained.parameters(), strict=True))


def test_averaged_weights_are_rounded_to_the_last_steps(
    workbench: MakeWorkbench, point: MakePoint, tmp_path: Path
) -> None:
    """Trained alike, with and without an average: the same steps in the end, other multiples of them."""
    weights = []
    for average in (0.0, 0.9):
        made, chosen = workbench(epochs=1, learning_rate=2e-2, average=average), point(entropy=0.3)
        outcome = run_trial(made, chosen, 0, ArtifactStore(tmp_path))
        weights.append(rebuilt(made, chosen, outcome, tmp_path)[0].get_parameter("0.weight").detach().double())
    step = min(float(level) for level in weights[0].abs().unique() if level > 0)
    multiples = [weight / step for weight in weights]
    assert all(torch.allclose(each, each.round(), atol=1e-3) for each in multiples)
    assert not torch.equal(*weights)


def test_latency_is_measured_if_asked_for(workbench: MakeWorkbench, point: MakePoint, dense_point: MakePoint) -> None:
    made = workbench(latency=LatencySettings(repeats=2), epochs=0)
    dense = dense_measurements(made)
    assert dense["latency"] > 0
    assert dense["latency_ratio"] == 1
    shared = dataclasses.replace(made, dense_latency=0.5)
    found = run_trial(shared, point(), 0).measurements
    assert found["latency"] == found["latency_ratio"] * 0.5 > 0
    assert run_trial(shared, dense_point(), 0).measurements["latency"] == 0.5
    assert "latency" not in run_trial(workbench(epochs=0), point(), 0).measurements


def test_the_dense_model_is_not_measured_again_when_its_measurements_are_known(
    workbench: MakeWorkbench, task: Supervised, point: MakePoint, dense_point: MakePoint, tmp_path: Path
) -> None:
    artifacts, made = ArtifactStore(tmp_path), workbench(epochs=0)
    measured = dense_measurements(made)
    blind = dataclasses.replace(made, task=dataclasses.replace(task, selection_batches=[]), dense_measured=measured)
    fresh, known = (run_trial(each, dense_point(), 0, artifacts) for each in (made, blind))
    assert known.measurements == fresh.measurements == measured
    assert [(each.kind, each.sha256) for each in known.artifacts] == [
        (each.kind, each.sha256) for each in fresh.artifacts
    ]
    assert run_trial(blind, point(), 0).state is State.FAILED
    assert run_trial(blind, dense_point(entropy=0.3), 0).state is State.FAILED


def test_a_trial_never_touches_the_test_data(workbench: MakeWorkbench, task: Supervised, point: MakePoint) -> None:
    hidden = dataclasses.replace(task, test_batches=[])
    made = workbench(hidden, epochs=0.2)
    assert run_trial(made, point(entropy=0.1), 0).state is State.COMPLETE
    with pytest.raises(TaskError, match="test data yielded no batch"):
        test_measurements(hidden, made.dense)


# ---- what goes wrong -----------------------------------------------------------------------------------


def test_a_diverging_training_is_an_outcome(workbench: MakeWorkbench, point: MakePoint, tmp_path: Path) -> None:
    made = workbench(optimizer="sgd", learning_rate=1e20, gradient_clip=math.inf)
    outcome = run_trial(made, point(), 0, ArtifactStore(tmp_path))
    assert outcome.state is State.DIVERGED
    assert "epoch 1, step" in outcome.reason
    assert not outcome.measurements
    assert not any(tmp_path.iterdir())


def test_a_measurement_that_is_not_finite_is_divergence(
    workbench: MakeWorkbench, task: Supervised, dense_point: MakePoint
) -> None:
    made = workbench(dataclasses.replace(task, metric=lambda outputs, targets: math.nan))
    outcome = run_trial(made, dense_point(), 0)
    assert (outcome.state, outcome.reason) == (State.DIVERGED, "measured after training: error is nan")


def raising(outputs: object, targets: object) -> float:
    raise ZeroDivisionError("no\n  classes")


@pytest.mark.parametrize("where", ["loss_function", "metric"])
def test_an_error_of_the_task_is_an_outcome_with_its_traceback_logged(
    workbench: MakeWorkbench, task: Supervised, point: MakePoint, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    made = workbench(dataclasses.replace(task, **{where: raising}), epochs=0.2)
    with caplog.at_level(logging.WARNING, "rank_search"):
        outcome = run_trial(made, point(), 0)
    assert (outcome.state, outcome.reason) == (State.FAILED, "ZeroDivisionError: no classes")
    assert "in raising" in caplog.text


def test_an_impossible_point_is_an_outcome(workbench: MakeWorkbench) -> None:
    outcome = run_trial(workbench(), Point({"nowhere": Choice("svd", {"rank": 1})}), 0)
    assert outcome.state is State.FAILED
    assert outcome.reason.startswith("LayerError: ")
    assert "'nowhere'" in outcome.reason


def test_a_state_that_has_no_file_is_an_outcome_that_leaves_none(
    workbench: MakeWorkbench, dense_point: MakePoint, task: Supervised, tmp_path: Path
) -> None:
    """safetensors have no numbers of 128 bits."""
    strange = copy.deepcopy(task.network)
    strange.register_buffer("filter", torch.ones(3, dtype=torch.complex128))
    made = dataclasses.replace(workbench(), dense=strange)
    outcome = run_trial(made, dense_point(), 0, ArtifactStore(tmp_path))
    assert (outcome.state, "complex128" in outcome.reason) == (State.FAILED, True)
    assert not any(tmp_path.iterdir())


def test_an_interrupt_passes_through_a_trial(task: Supervised, workbench: MakeWorkbench, point: MakePoint) -> None:
    def interrupted(outputs: Tensor, targets: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(workbench(dataclasses.replace(task, loss_function=interrupted), epochs=0.2), point(), 0)


@pytest.mark.parametrize("file", [1, 2])
def test_a_full_disk_is_no_fault_of_the_trial(
    workbench: MakeWorkbench, dense_point: MakePoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    calls, sync = iter(range(1, 3)), os.fsync

    def full(handle: int) -> None:
        sync(handle)
        if stat.S_ISREG(os.fstat(handle).st_mode) and next(calls) == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        run_trial(workbench(), dense_point(), 0, ArtifactStore(tmp_path))
    assert not any(tmp_path.iterdir())


def test_weights_of_another_point_are_refused(workbench: MakeWorkbench, point: MakePoint) -> None:
    made = workbench()
    with pytest.raises(TrialError, match=r"do not fit .*4\.weight"):
        build(made.dense, point(), made.layers, made.plugins, made.dense.state_dict())


def test_an_entry_of_the_state_dict_that_is_no_tensor_is_named(workbench: MakeWorkbench, task: Supervised) -> None:
    class Extra(nn.Sequential):
        def get_extra_state(self) -> str:
            return "something"

        def set_extra_state(self, state: str) -> None:
            pass

    made = dataclasses.replace(workbench(), dense=Extra(*task.network))
    with pytest.raises(TaskError, match="has _extra_state, which is no tensor"):
        dense_measurements(made)
