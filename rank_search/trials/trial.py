"""One trial: from a point to an outcome."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.coding import decode, encode
from rank_search.errors import ArtifactError, TaskError
from rank_search.layers import factorize
from rank_search.point import Artifact, Outcome, Point, State
from rank_search.quantization import (
    CodingSettings,
    Quantizer,
    canonize,
    component_modes,
    latents,
    reestimate_batchnorm,
    weight_count,
)
from rank_search.tasks import Stop, never, not_finite, seeded, task_errors
from rank_search.training import (
    MODEL,
    Checkpoint,
    Diverged,
    EntropyPenalty,
    FineTuning,
    Trainer,
    TrainingSettings,
    round_latents,
    to_safetensors,
)
from rank_search.trials.latency import LATENCY, LATENCY_RATIO, measure_latency, measure_latency_ratio
from rank_search.trials.limits import memory_limited
from rank_search.trials.measure import measure
from rank_search.trials.workbench import TrialContext, build

ORTHOGONALITY: Final = "orthogonality"
ENTROPY: Final = "entropy"
"""Names of the two penalties in `Point.penalties`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Goal:
    """Which trial it is, how far it is trained, and from where."""

    trial: Mapping[str, Any]
    budget: float
    is_full: bool
    start: Checkpoint | None
    stop: Stop


@dataclass(frozen=True)
class _Result:
    """A trial's decoded model, its byte string, what was measured on it, and the way back into its training."""

    state: dict[str, Tensor]
    coded: bytes
    measurements: dict[str, float]
    checkpoint: bytes | None = None


def run_trial(
    workbench: TrialContext,
    point: Point,
    rng_seed: int,
    artifacts: ArtifactStore | None = None,
    stop: Stop = never,
    *,
    budget: float | None = None,
    checkpoint: Artifact | None = None,
    memory: float | None = None,
) -> Outcome:
    """Factorize, fine-tune, code, decode, and measure the decoded model.

    A point that changes nothing (all layers dense, no entropy penalty) is measured as it is: there is nothing
    to recover from. What raises on the way (in the task, a plugin or PyTorch) is an outcome, FAILED, and its
    traceback is logged; numbers that are not finite are an outcome too, DIVERGED.

    Below the full budget the measurements are what they would be if the training were over: averaged, rounded, with
    statistics taken again, and coded. The training is kept before that, as it was after its last batch. Gone on
    with, it ends exactly like one that was never left: see `Trainer`.

    Args:
        rng_seed: the trial is deterministic given this; torch's global generator is left as it was.
        artifacts: where a complete trial leaves its `model` and its `coded` bytes, and one below the full budget
            its `checkpoint` (none if there was nothing to train); None keeps nothing.
        stop: called between batches; what it raises ends the trial.
        budget: epochs to train to, of those in `workbench.training`, whose schedule holds; None: all of them.
        checkpoint: of the same trial at a smaller budget, to go on from.
        memory: GiB that the trial may take beyond what the process holds; see `memory_limited`.

    Raises:
        ArtifactError: the artifacts could not be written, or the checkpoint could not be read or is of another
            trial (then start this one over); that is no fault of the trial.
    """
    full = workbench.training.epochs
    target = full if budget is None else min(budget, full)
    settings = {"training": workbench.training.model_dump(), "coding": workbench.coding.model_dump()}
    trial = {"point": point.key, "rng_seed": rng_seed, **settings}
    start = None if checkpoint is None else _read(artifacts, checkpoint, trial, target)
    try:
        with memory_limited(memory), seeded(rng_seed):
            result = _carry_out(workbench, point, _Goal(trial, target, target == full, start, stop))
    except ArtifactError:
        raise
    except Exception as error:  # noqa: BLE001  the one place where any error becomes an outcome
        _log.warning("The trial of point %s failed.", point.key[:12], exc_info=True)
        return Outcome(State.FAILED, reason=_one_line(error))
    if isinstance(result, Diverged):
        return Outcome(State.DIVERGED, reason=result.reason)
    if names := not_finite(result.measurements):
        found = ", ".join(f"{name} is {result.measurements[name]}" for name in names)
        return Outcome(State.DIVERGED, reason=f"measured after training: {found}")
    kept = () if artifacts is None else _keep(result, artifacts, point.key, target == full)
    return Outcome(State.COMPLETE, result.measurements, artifacts=kept)


def dense_measurements(workbench: TrialContext) -> dict[str, float]:
    """The measurements of the dense model as it is, coded as 32-bit floats.

    Raises:
        TaskError: the task raises, or its answers cannot be used.
        TrialError: the model's tensors cannot be coded.
    """
    coded = encode(_state(workbench.dense))
    with task_errors("selection() or evaluate()"):
        found = _measured(workbench, Point({}), coded).measurements
    if names := not_finite(found):
        values = ", ".join(f"{name} is {found[name]}" for name in names)
        raise TaskError(
            f"The measurements of the dense model are finite; {values}. Correct the metric, the selection data or "
            "the weights."
        )
    return found


def _carry_out(workbench: TrialContext, point: Point, goal: _Goal) -> _Result | Diverged:
    if not _is_factorized(point) and point.penalties.get(ENTROPY, 0.0) <= 0:
        return _unchanged(workbench, point)
    model, effort, training = _begun(workbench, point, goal)
    if diverged := training.advance(goal.budget):
        return diverged
    checkpoint = None if goal.is_full else training.kept(**goal.trial, epochs=goal.budget).to_bytes()
    changed, grids = training.settle(), None
    if effort.entropy is not None:
        grids = round_latents(workbench.task, model, effort.entropy, workbench.coding.rounding, goal.stop)
    if changed or grids:
        _reestimate(workbench, model, goal.stop)
    if grids:
        grids |= canonize(model)
    return replace(_measured(workbench, point, encode(_state(model), grids)), checkpoint=checkpoint)


def _unchanged(workbench: TrialContext, point: Point) -> _Result:
    """The dense model, measured again only if the study has not done so."""
    coded, measured = encode(_state(workbench.dense)), workbench.dense_measured
    if not measured:
        return _measured(workbench, point, coded)
    return _Result(decode(coded), coded, {**measured, "bits": 8.0 * len(coded)})


def _is_factorized(point: Point) -> bool:
    return any(not choice.is_dense for choice in point.layers.values())


def _begun(workbench: TrialContext, point: Point, goal: _Goal) -> tuple[nn.Module, FineTuning, Trainer]:
    """The model and its training: at the beginning, or where the checkpoint left it."""
    if goal.start is not None:
        model = build(workbench.dense, point, workbench.layers, workbench.plugins, goal.start.part(MODEL))
        effort = _effort(workbench, point, model, goal.stop)
        return model, effort, Trainer.restored(workbench.task, model, effort, goal.start)
    model = factorize(workbench.dense, point, workbench.layers, workbench.plugins, workbench.bases)
    if _is_factorized(point):
        _reestimate(workbench, model, goal.stop)
    effort = _effort(workbench, point, model, goal.stop)
    return model, effort, Trainer(workbench.task, model, effort)


def _effort(workbench: TrialContext, point: Point, model: nn.Module, stop: Stop) -> FineTuning:
    entropy = _entropy_penalty(workbench, model, point.penalties.get(ENTROPY, 0.0))
    teacher = workbench.dense if workbench.training.distillation > 0 else None
    return FineTuning(workbench.training, point.penalties.get(ORTHOGONALITY, 0.0), entropy, teacher, stop)


def _reestimate(workbench: TrialContext, model: nn.Module, stop: Stop) -> None:
    reestimate_batchnorm(workbench.task, model, stop, workbench.training.norm_batches)


def _entropy_penalty(workbench: TrialContext, model: nn.Module, price: float) -> EntropyPenalty | None:
    tensors = latents(model)
    if price <= 0 or not tensors:
        return None
    coding = workbench.coding
    modes = component_modes(model) if coding.steps == "component" else None
    quantizer = Quantizer(tensors, workbench.training.entropy_start_bits, coding, modes)
    return EntropyPenalty(quantizer, price / weight_count(workbench.dense))


def _measured(workbench: TrialContext, point: Point, coded: bytes) -> _Result:
    """Decode, rebuild the model as an export does, and measure that."""
    state = decode(coded)
    model = build(workbench.dense, point, workbench.layers, workbench.plugins, state)
    found = measure(workbench.task, model, len(coded), workbench.examples)
    return _Result(state, coded, found | _latency(workbench, point, model))


def _latency(workbench: TrialContext, point: Point, model: nn.Module) -> dict[str, float]:
    """The ratio to the dense model, which is 1 where no layer is factorized, and seconds in the study's unit."""
    settings, example = workbench.latency, workbench.task.example()
    if settings is None:
        return {}
    unit = workbench.dense_latency or measure_latency(workbench.dense, example, settings)
    ratio = measure_latency_ratio(workbench.dense, model, example, settings) if _is_factorized(point) else 1.0
    return {LATENCY: ratio * unit, LATENCY_RATIO: ratio}


def _state(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    if strange := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise TaskError(
            f"A model's state is made of tensors, so that it can be coded; {', '.join(strange)} is something "
            "else. Keep it as a buffer, or out of the state dict."
        )
    return state


def _read(artifacts: ArtifactStore | None, checkpoint: Artifact, trial: Mapping[str, Any], budget: float) -> Checkpoint:
    """The checkpoint, if it is of this trial, and not past the budget."""
    if artifacts is None:
        raise ArtifactError("A checkpoint is read from an artifact store; none was given. Pass the study's.")
    found = Checkpoint.from_bytes(artifacts.read(checkpoint))
    # A key that was not there yet when the checkpoint was left counts as its default.
    defaults = {"training": TrainingSettings().model_dump(), "coding": CodingSettings().model_dump()}
    about = {**found.about} | {name: each | found.about.get(name, {}) for name, each in defaults.items()}
    if any(about.get(key) != value for key, value in trial.items()):
        raise ArtifactError(
            f"A checkpoint goes on with the trial that left it; {checkpoint.location} is of another point, another "
            "rng seed or other training settings. Start the trial over."
        )
    if found.about["epochs"] > budget:
        raise ArtifactError(
            f"A checkpoint is gone on with to a larger budget; {checkpoint.location} was left after "
            f"{found.about['epochs']:g} epochs, and {budget:g} are asked for. Start the trial over."
        )
    return found


def _keep(result: _Result, artifacts: ArtifactStore, stem: str, is_full: bool) -> tuple[Artifact, ...]:
    if not is_full:
        data = result.checkpoint
        return () if data is None else (artifacts.write("checkpoint", stem, ".checkpoint", data),)
    coded = artifacts.write("coded", stem, ".coded", result.coded)
    try:
        return artifacts.write("model", stem, ".safetensors", to_safetensors(result.state)), coded
    except ArtifactError:
        artifacts.delete(coded.location)
        raise


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
