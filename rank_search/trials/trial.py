"""One trial: from a point to an outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from rank_search.errors import TaskError, TrialError
from rank_search.layers import Bases, Layer, Plugins, factorize, skeleton
from rank_search.point import Artifact, Outcome, Point, State
from rank_search.trials.artifacts import to_safetensors, write_artifact
from rank_search.trials.coding import decode, encode
from rank_search.trials.measure import measure
from rank_search.trials.rate import Quantizer, latents, weight_count
from rank_search.trials.settings import LatencySettings, TrainingSettings
from rank_search.trials.task import Task, asked, not_finite
from rank_search.trials.training import (
    Diverged,
    Effort,
    EntropyPenalty,
    Stop,
    fine_tune,
    never,
    reestimate_batchnorm,
    seeded,
)

ORTHOGONALITY: Final = "orthogonality"
ENTROPY: Final = "entropy"
"""Names of the two penalties in `Point.penalties`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workbench:
    """What all trials of a worker share; no trial changes it.

    Attributes:
        task: data, loss and metric.
        dense: the trained dense model.
        layers: the layers that points choose for (`Inventory.layers`).
        plugins: factorization classes by name.
        bases: gives the bases of a layer's weight, by layer name.
        training: how each trial fine-tunes.
        latency: how latency is measured, or None to leave it out.
    """

    task: Task
    dense: nn.Module
    layers: Mapping[str, Layer]
    plugins: Plugins
    bases: Callable[[str], Bases]
    training: TrainingSettings = field(default_factory=TrainingSettings)
    latency: LatencySettings | None = None


@dataclass(frozen=True)
class _Result:
    """A trial's decoded model, its byte string, and what was measured on it."""

    state: dict[str, Tensor]
    coded: bytes
    measurements: dict[str, float]


def run_trial(
    workbench: Workbench, point: Point, rng_seed: int, artifact_folder: Path | None = None, stop: Stop = never
) -> Outcome:
    """Factorize, fine-tune, code, decode, and measure the decoded model.

    A point that changes nothing (all layers dense, no entropy penalty) is measured as it is: there is nothing
    to recover from. What raises on the way (in the task, a plugin or PyTorch) is an outcome, FAILED, and its
    traceback is logged; numbers that are not finite are an outcome too, DIVERGED.

    Args:
        rng_seed: the trial is deterministic given this; torch's global generator is left as it was.
        artifact_folder: where a complete trial leaves `<point key>.safetensors` and `<point key>.coded`;
            None keeps nothing.
        stop: called between batches; what it raises ends the trial.

    Raises:
        TrialError: the artifacts could not be written; that is no fault of the trial.
    """
    try:
        with seeded(rng_seed):
            result = _carry_out(workbench, point, stop)
    except Exception as error:  # noqa: BLE001  the one place where any error becomes an outcome
        _log.warning("The trial of point %s failed.", point.key[:12], exc_info=True)
        return Outcome(State.FAILED, reason=_one_line(error))
    if isinstance(result, Diverged):
        return Outcome(State.DIVERGED, reason=result.reason)
    if names := not_finite(result.measurements):
        found = ", ".join(f"{name} is {result.measurements[name]}" for name in names)
        return Outcome(State.DIVERGED, reason=f"measured after training: {found}")
    artifacts = () if artifact_folder is None else _keep(result, artifact_folder, point.key)
    return Outcome(State.COMPLETE, result.measurements, artifacts=artifacts)


def dense_measurements(workbench: Workbench) -> dict[str, float]:
    """The measurements of the dense model as it is, coded as 32-bit floats.

    Raises:
        TaskError: the task raises, or its answers cannot be used.
        TrialError: the model's tensors cannot be coded.
    """
    coded = encode(_state(workbench.dense))
    with asked("selection() or evaluate()"):
        found = _measured(workbench, Point({}), coded).measurements
    if names := not_finite(found):
        values = ", ".join(f"{name} is {found[name]}" for name in names)
        raise TaskError(
            f"The measurements of the dense model are finite; {values}. Correct the metric, the selection data or "
            "the weights."
        )
    return found


def build(
    model: nn.Module, point: Point, layers: Mapping[str, Layer], plugins: Plugins, state: Mapping[str, Tensor]
) -> nn.Module:
    """The model of a trial from its point and its state dict, in eval mode.

    Args:
        model: the dense model; it is not changed, and its weights do not matter.

    Raises:
        LayerError: the point does not fit the layers.
        TrialError: the state dict does not fit the point.
    """
    built = skeleton(model, point, layers, plugins)
    try:
        built.load_state_dict(state)
    except RuntimeError as error:
        raise TrialError(
            f"A trial's weights fit the model that its point makes; these do not: {' '.join(str(error).split())} "
            "Are they of another trial, or is the dense model another one?"
        ) from error
    return built.eval()


def _carry_out(workbench: Workbench, point: Point, stop: Stop) -> _Result | Diverged:
    strength, price = point.penalties.get(ORTHOGONALITY, 0.0), point.penalties.get(ENTROPY, 0.0)
    factorized = any(not choice.is_dense for choice in point.layers.values())
    if not factorized and price <= 0:
        return _measured(workbench, point, encode(_state(workbench.dense)))
    model = factorize(workbench.dense, point, workbench.layers, workbench.plugins, workbench.bases)
    task = workbench.task
    if factorized:
        reestimate_batchnorm(task, model, stop)
    entropy = _entropy_penalty(workbench, model, price)
    if diverged := fine_tune(task, model, Effort(workbench.training, strength, entropy, stop)):
        return diverged
    steps = None if entropy is None else entropy.quantizer.steps()
    if entropy is not None:
        entropy.quantizer.round_(latents(model))
        reestimate_batchnorm(task, model, stop)
    return _measured(workbench, point, encode(_state(model), steps))


def _entropy_penalty(workbench: Workbench, model: nn.Module, price: float) -> EntropyPenalty | None:
    tensors = latents(model)
    if price <= 0 or not tensors:
        return None
    quantizer = Quantizer(tensors, workbench.training.entropy_start_bits)
    return EntropyPenalty(quantizer, price / weight_count(workbench.dense))


def _measured(workbench: Workbench, point: Point, coded: bytes) -> _Result:
    """Decode, rebuild the model as an export does, and measure that."""
    state = decode(coded)
    model = build(workbench.dense, point, workbench.layers, workbench.plugins, state)
    return _Result(state, coded, measure(workbench.task, model, len(coded), workbench.latency))


def _state(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    if strange := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise TaskError(
            f"A model's state is made of tensors, so that it can be coded; {', '.join(strange)} is something "
            "else. Keep it as a buffer, or out of the state dict."
        )
    return state


def _keep(result: _Result, folder: Path, name: str) -> tuple[Artifact, ...]:
    coded = write_artifact(folder, "coded", f"{name}.coded", result.coded)
    try:
        return write_artifact(folder, "model", f"{name}.safetensors", to_safetensors(result.state)), coded
    except TrialError:
        (folder / coded.location).unlink(missing_ok=True)
        raise


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
