"""One trial: from a point to an outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.coding import Grid, decode, encode, to_safetensors
from rank_search.errors import ArtifactError, TaskError
from rank_search.layers import drop_not_stored, factorize
from rank_search.options import factorize_in_order
from rank_search.point import Artifact, Cut, Outcome, Point, State
from rank_search.quantization import (
    Quantizer,
    canonize,
    component_modes,
    latents,
    reestimate_batchnorm,
    weight_count,
)
from rank_search.tasks import not_finite, seeded, task_errors
from rank_search.training import (
    MODEL,
    Checkpoint,
    Diverged,
    EntropyPenalty,
    FineTuning,
    Keep,
    Keeping,
    SparsityPenalty,
    Trainer,
    balance_components,
    round_latents,
)
from rank_search.trials.checkpoints import read_checkpoint
from rank_search.trials.context import TrialContext, build
from rank_search.trials.latency import LATENCY, LATENCY_RATIO, measure_latency, measure_latency_ratio
from rank_search.trials.limits import memory_limited
from rank_search.trials.measure import coded_sizes, measure
from rank_search.trials.result_rows import row_of
from rank_search.trials.settling import Settled, fold, layer_costs, settled, settled_costs

ORTHOGONALITY: Final = "orthogonality"
ENTROPY: Final = "entropy"
SPARSITY: Final = "sparsity"
"""Names of the three penalties in `Point.penalties`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Result:
    """A trial's decoded model, its byte string, what was measured on it, and the way back into its training.

    The model is that of the point asked for, or of the one that it has settled at. `row` has its cuts, by their points.
    """

    state: dict[str, Tensor]
    coded: bytes
    measurements: dict[str, float]
    checkpoint: bytes | None = None
    settled: Point | None = None
    settled_costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    row: tuple[tuple[Point, _Result], ...] = ()


def run_trial(
    context: TrialContext,
    point: Point,
    rng_seed: int,
    artifacts: ArtifactStore | None = None,
    *,
    budget: float | None = None,
    checkpoint: Artifact | None = None,
    keep: Keep | None = None,
) -> Outcome:
    """Factorize, fine-tune, code, decode, and measure the decoded model.

    A point that changes nothing (all layers dense, no entropy penalty) is measured as it is: there is nothing
    to recover from. What raises on the way (in the task, a plugin or PyTorch) is an outcome, FAILED, and its
    traceback is logged; numbers that are not finite are an outcome too, DIVERGED.

    Below the full budget the measurements are what they would be if the training were over: averaged, rounded, with
    statistics taken again, and coded. The training is kept before that, as it was after its last batch. Gone on
    with, it ends exactly like one that was never left: see `Trainer`. At the full budget the outcome has a row of
    further results, if the context asks for it: the model cut, and measured like any other.

    Args:
        rng_seed: the trial is deterministic given this; the global generators (torch's, NumPy's, Python's) are left
            as they were.
        artifacts: where a complete trial leaves its `model` and its `coded` bytes, and one below the full budget
            its `checkpoint` (none if nothing was trained); None keeps nothing.
        budget: epochs to train to, of those in `context.training`, whose schedule holds; None: all of them.
        checkpoint: of the same trial at a smaller budget, or on the way to this one, to go on from.
        keep: checkpoints on the way; None: there are none.

    Raises:
        ArtifactError: the artifacts could not be written, or the checkpoint could not be read or is of another
            trial (then start this one over); that is no fault of the trial.
    """
    full = context.training.epochs
    target = full if budget is None else min(budget, full)
    settings = {"training": context.training.model_dump(), "coding": context.coding.model_dump()}
    trial = {"point": point.key, "rng_seed": rng_seed, **settings}
    start = None if checkpoint is None else read_checkpoint(artifacts, checkpoint, trial, target)
    try:
        with memory_limited(context.memory), seeded(rng_seed):
            result = _carry_out(context, point, trial, target, start, keep)
        return _with_files(context, point, result, artifacts, target == full)
    except ArtifactError:
        raise
    except Exception as error:  # noqa: BLE001  the one place where any error becomes an outcome
        _log.warning("The trial of point %s failed.", point.key[:12], exc_info=True)
        return Outcome(State.FAILED, reason=_one_line(error))


def _with_files(
    context: TrialContext, point: Point, result: _Result | Diverged, artifacts: ArtifactStore | None, is_full: bool
) -> Outcome:
    """The outcome, and those of its cuts, with their files written."""
    outcome = _outcome(result, artifacts, point.key, is_full)
    if isinstance(result, Diverged) or outcome.state is not State.COMPLETE:
        return outcome
    return replace(outcome, row=tuple(_cut(context, *each, artifacts) for each in result.row))


def _cut(context: TrialContext, point: Point, result: _Result, artifacts: ArtifactStore | None) -> Cut:
    costs = layer_costs(point, context.layers, context.plugins)
    return Cut(point, _outcome(result, artifacts, point.key, True), costs)


def _outcome(result: _Result | Diverged, artifacts: ArtifactStore | None, stem: str, is_full: bool) -> Outcome:
    """What came of a training; its files are kept if every measurement is finite."""
    if isinstance(result, Diverged):
        return Outcome(State.DIVERGED, reason=result.reason)
    if said := _not_finite(result.measurements):
        return Outcome(State.DIVERGED, reason=f"measured after training: {said}")
    kept = () if artifacts is None else _keep(result, artifacts, stem, is_full)
    return Outcome(State.COMPLETE, result.measurements, "", kept, result.settled, result.settled_costs)


def _not_finite(measurements: Mapping[str, float]) -> str:
    """Which numbers are not finite, in words."""
    return ", ".join(f"{name} is {measurements[name]}" for name in not_finite(measurements))


def dense_measurements(context: TrialContext) -> dict[str, float]:
    """The measurements of the dense model as it is, coded as 32-bit floats.

    Raises:
        TaskError: the task raises, or its answers cannot be used.
        TrialError: the model's tensors cannot be coded.
    """
    coded = encode(_state(context.dense))
    with task_errors("selection() or evaluate()"):
        found = _measured(context, Point({}), coded).measurements
    if said := _not_finite(found):
        raise TaskError(
            f"The dense model's measurements are not finite: {said}. Correct the metric, the selection data or the "
            "weights."
        )
    return found


def _carry_out(
    context: TrialContext,
    point: Point,
    trial: Mapping[str, Any],
    epochs: float,
    start: Checkpoint | None,
    keep: Keep | None,
) -> _Result | Diverged:
    """`trial`: which one it is, for the checkpoints that it leaves; `start`: the one that it goes on from."""
    if not _is_factorized(point) and point.penalties.get(ENTROPY, 0.0) <= 0:
        return _unchanged(context, point)
    model, effort, training = _begun(context, point, start)
    if diverged := training.advance(epochs, None if keep is None else Keeping(keep, trial, epochs)):
        return diverged
    is_full = epochs == context.training.epochs
    checkpoint = None if is_full or epochs == 0 else training.kept(**trial, epochs=epochs).to_bytes()
    untrained = None if _is_factorized(point) else _state(context.dense)
    grids = _finished(context, model, effort, training, untrained)
    found = settled(model, Settled(point, _state(model), grids), context.round_to)
    result = replace(_settled_result(context, point, found), checkpoint=checkpoint)
    return replace(result, row=tuple(_row(context, found, result.measurements))) if is_full else result


def _settled_result(context: TrialContext, point: Point, found: Settled) -> _Result:
    """Coded, decoded and measured, of a model that was asked for at a point."""
    result = _measured(context, found.point, encode(found.state, found.grids))
    if found.point == point:
        return result
    costs = settled_costs(point, found.point, context.layers, context.plugins)
    return replace(result, settled=found.point, settled_costs=costs)


def _row(context: TrialContext, trained: Settled, measured: Mapping[str, float]) -> Iterator[tuple[Point, _Result]]:
    """The trained model's cuts; those that fail or have numbers that are not finite are left out, as that says nothing
    of a model which is trained at their points."""
    for smaller in row_of(context, trained, measured) if context.row and not _not_finite(measured) else ():
        result = _result_of_cut(context, smaller)
        if result is not None and not _not_finite(result.measurements):
            yield smaller.point, result


def _result_of_cut(context: TrialContext, smaller: Settled) -> _Result | None:
    """With statistics of batch norms taken again; None if anything raises."""
    try:
        model = build(context.dense, smaller.point, context.layers, context.plugins, smaller.state)
        _reestimate(context, model)
        found = settled(model, replace(smaller, state=_state(model)), context.round_to)
        return _settled_result(context, smaller.point, found)
    except Exception:  # noqa: BLE001  the training, which takes long and has succeeded, is not lost for it
        _log.warning("A cut, of point %s, failed and is left out.", smaller.point.key[:12], exc_info=True)
        return None


def _finished(
    context: TrialContext,
    model: nn.Module,
    effort: FineTuning,
    training: Trainer,
    untrained: Mapping[str, Tensor] | None,
) -> Mapping[str, Grid] | None:
    """Ends the training: averaged, folded, rounded, with statistics taken again. Returned are the grids, if any."""
    changed, grids = training.settle(), None
    fold(model)
    drop_not_stored(model)
    if effort.entropy is not None:
        grids = round_latents(context.task, model, effort.entropy, context.coding.rounding, untrained)
    if changed or grids:
        _reestimate(context, model)
    if grids:
        grids |= canonize(model)
    return grids


def _unchanged(context: TrialContext, point: Point) -> _Result:
    """The dense model, measured again only if the study has not done so."""
    coded, measured = encode(_state(context.dense)), context.dense_measured
    if not measured:
        return _measured(context, point, coded)
    return _Result(decode(coded), coded, {**measured, **coded_sizes(context.task, len(coded))})


def _is_factorized(point: Point) -> bool:
    return any(not choice.is_dense for choice in point.layers.values())


def _begun(context: TrialContext, point: Point, start: Checkpoint | None) -> tuple[nn.Module, FineTuning, Trainer]:
    """The model and its training: at the beginning, or where the checkpoint left it."""
    if start is not None:
        model = build(context.dense, point, context.layers, context.plugins, start.part(MODEL))
        effort = _effort(context, point, model)
        return model, effort, Trainer.restored(context.task, model, effort, start)
    model = _fitted(context, point)
    if point.penalties.get(SPARSITY, 0.0) > 0:
        balance_components(model, framed=point.penalties.get(ORTHOGONALITY, 0.0) > 0)
    if _is_factorized(point):
        _reestimate(context, model)
    effort = _effort(context, point, model)
    return model, effort, Trainer(context.task, model, effort)


def _fitted(context: TrialContext, point: Point) -> nn.Module:
    """The model before it is trained."""
    parts = context.dense, point, context.layers, context.plugins, context.bases
    return factorize(*parts) if context.sequential is None else factorize_in_order(*parts, context.sequential)


def _effort(context: TrialContext, point: Point, model: nn.Module) -> FineTuning:
    entropy = _entropy_penalty(context, model, point.penalties.get(ENTROPY, 0.0))
    teacher = context.dense if context.training.distillation > 0 else None
    strength = point.penalties.get(SPARSITY, 0.0)
    sparsity = SparsityPenalty(strength, context.judged) if strength > 0 else None
    frames, ordered = point.penalties.get(ORTHOGONALITY, 0.0), context.training.ordered
    return FineTuning(context.training, frames, entropy, teacher, sparsity, ordered)


def _reestimate(context: TrialContext, model: nn.Module) -> None:
    reestimate_batchnorm(context.task, model, context.training.norm_batches)


def _entropy_penalty(context: TrialContext, model: nn.Module, price: float) -> EntropyPenalty | None:
    tensors = latents(model)
    if price <= 0 or not tensors:
        return None
    coding = context.coding
    modes = component_modes(model) if coding.steps == "component" else None
    quantizer = Quantizer(tensors, context.training.entropy_start_bits, coding, modes)
    return EntropyPenalty(quantizer, price / weight_count(context.dense))


def _measured(context: TrialContext, point: Point, coded: bytes) -> _Result:
    """Decode, rebuild the model as an export does, and measure that."""
    state = decode(coded)
    model = build(context.dense, point, context.layers, context.plugins, state)
    found = measure(context.task, model, len(coded), context.examples)
    return _Result(state, coded, found | _latency(context, point, model))


def _latency(context: TrialContext, point: Point, model: nn.Module) -> dict[str, float]:
    """The ratio to the dense model, which is 1 where no layer is factorized, and seconds in the study's unit."""
    settings, example = context.latency, context.task.example()
    if settings is None:
        return {}
    unit = context.dense_latency or measure_latency(context.dense, example, settings)
    ratio = measure_latency_ratio(context.dense, model, example, settings) if _is_factorized(point) else 1.0
    return {LATENCY: ratio * unit, LATENCY_RATIO: ratio}


def _state(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    if strange := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise TaskError(
            f"The model's state has {', '.join(strange)}, which is no tensor and cannot be coded. Keep it as a buffer, "
            "or out of the state dict."
        )
    return state


def _keep(result: _Result, artifacts: ArtifactStore, stem: str, is_full: bool) -> tuple[Artifact, ...]:
    if not is_full:
        data = result.checkpoint
        return () if data is None else (artifacts.write("checkpoint", stem, ".checkpoint", data),)
    model = to_safetensors(result.state)
    coded = artifacts.write("coded", stem, ".coded", result.coded)
    try:
        return artifacts.write("model", stem, ".safetensors", model), coded
    except ArtifactError:
        artifacts.delete(coded.location)
        raise


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
