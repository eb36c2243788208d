"""Where trials begin: the user's own network, or one that was trained over-parameterized first and put together again.

In the manner of He, Jiang and Wu, "Convolutional Neural Network Compression Based on Low-Rank Decomposition" (2024,
arXiv:2408.16289): every layer is written as factors of full rank, the network is trained so with a penalty that keeps
the frames orthogonal, and the ranks are read off what comes of it. Their coefficients and schedule were not at hand;
ours are in the study file.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from rank_search.coding import own_copies
from rank_search.errors import CheckpointError, LayerError, TrialError
from rank_search.layers import (
    Axis,
    DirectBases,
    Factorization,
    axes_of,
    copied,
    factorize,
    groups_of,
    layer_in,
    plugin_version,
    recompose,
    weight_of,
)
from rank_search.point import Choice, Point
from rank_search.priors import TensorFiles, digest
from rank_search.study import Problem, Study, task_code
from rank_search.tasks import seeded, task_errors
from rank_search.training import (
    MODEL,
    Checkpoint,
    Diverged,
    FineTuning,
    Keep,
    Keeping,
    TrainingSettings,
    check_sampled,
    check_task,
    fine_tune,
    software,
)
from rank_search.trials import build

_log = logging.getLogger(__name__)


def with_pretrained_model(problem: Problem, folder: Path) -> Problem:
    """The problem with the network that trials begin from as its `model`; `original` stays the user's own.

    With `[study] method = "overparameterized"` that network is read from the folder, under a name that says what it
    was made from; if it is not there, it is trained, the same for the same rng seed, and left there. On its way the
    training keeps a checkpoint beside it, and goes on from there if its process has died.

    Raises:
        LayerError: a factorization of full rank is not the layer's weight.
        TaskError: the task cannot be trained with.
        TrialError: the training left the finite numbers.
    """
    if problem.study.study.method == "factorized":
        return problem
    files, name = TensorFiles(folder), _file_name(problem)
    state = files.load(name)
    if state is None:
        way = _Way(problem, folder, f"recovery-{name}")
        try:
            found = recompose(overparameterized(problem, way), problem.original, problem.inventory.layers)
        except TrialError:
            way.end()
            raise
        state = own_copies(found.state_dict())
        files.save(name, state)
        way.end()
    model = copied(problem.model)
    model.load_state_dict(state)
    return replace(problem, model=model)


@final
class _Way:
    """The checkpoint of the training on its way: a file of the cache, and how it is kept."""

    def __init__(self, problem: Problem, folder: Path, name: str) -> None:
        self._folder, self._name, self._seconds = folder, name, problem.study.launch.checkpoint_seconds

    def found(self) -> Checkpoint | None:
        """The one that is there; another code has another name for it."""
        kept = self._files.load(self._name)
        return None if kept is None else Checkpoint.from_bytes(kept["checkpoint"].numpy().tobytes())

    def keeping(self, budget: float) -> Keeping | None:
        return Keeping(Keep(self._seconds, self._save), {}, budget) if self._seconds else None

    def end(self) -> None:
        self._files.remove(self._name)

    @property
    def _files(self) -> TensorFiles:
        """Anew each time: a folder that was full once is given up by those who know, and is tried again here."""
        return TensorFiles(self._folder)

    def _save(self, data: bytes, epochs: float) -> None:
        self._files.save(self._name, {"checkpoint": torch.frombuffer(bytearray(data), dtype=torch.uint8)})


def overparameterized(problem: Problem, way: _Way | None = None) -> nn.Module:
    """The network with every searched layer as factors of full rank, trained with the orthogonality penalty."""
    start = None if way is None else way.found()
    if start is not None:
        model = build(
            problem.original, full_rank(problem), problem.inventory.layers, problem.plugins, start.part(MODEL)
        )
        with suppress(CheckpointError):  # the data is another: from the beginning
            return _trained(problem, model, way, start)
    layers = problem.inventory.layers
    model = factorize(problem.original, full_rank(problem), layers, problem.plugins, _direct_bases(problem.original))
    _require_the_same(model, problem)
    return _trained(problem, model, way)


def _trained(problem: Problem, model: nn.Module, way: _Way | None, start: Checkpoint | None = None) -> nn.Module:
    study, settings = problem.study, _training(problem.study)
    check_task(problem.task, model, settings)
    if study.priors.targets == "sampled":
        check_sampled(problem.task, problem.original)
    done, keeping = (0.0 if start is None else start.about["epochs"]), way and way.keeping(settings.epochs)
    _log.info("Training the over-parameterized network for %g epochs, from epoch %.4g.", settings.epochs, done)
    own = study.overparameterized
    teacher = problem.original if settings.distillation > 0 else None
    effort = FineTuning(settings, own.orthogonality, teacher=teacher, ordered=own.ordered)
    with seeded(study.study.seed), task_errors("training() or loss()"):
        diverged = fine_tune(problem.task, model, effort, start, keeping)
    if isinstance(diverged, Diverged):
        raise TrialError(
            f"The over-parameterized network is where all trials begin; its training diverged: {diverged.reason}. "
            "Lower [overparameterized] learning_rate."
        )
    return model


def full_rank(problem: Problem) -> Point:
    """Every searched layer as the wanted factorization, or the first that applies to it, with each axis at its top.

    Where training itself lowers ranks or makes weights zero, full rank would not last: such forms are left out.
    """
    wanted, layers = problem.study.overparameterized.factorization, problem.inventory.layers
    if wanted and wanted not in problem.plugins:
        raise LayerError(
            f"The over-parameterized network is made of what [layers] factorizations names; [overparameterized] "
            f"factorization is {wanted!r}, and there are: {', '.join(problem.plugins)}."
        )
    if wanted and _learns_less(problem.plugins[wanted]):
        raise LayerError(
            f"An over-parameterized network keeps its full rank; training lowers that of {wanted!r}, which is "
            "[overparameterized] factorization. Name another one, such as svd or tucker2."
        )
    lasting = {
        name: [key for key in own if not _learns_less(problem.plugins[key])] for name, own in problem.choices.items()
    }
    chosen = {name: wanted if wanted in own else own[0] for name, own in lasting.items() if own}
    axes = {name: axes_of(problem.plugins[key], layers[name]) for name, key in chosen.items()}
    return Point({name: Choice(key, {axis.name: _top(axis) for axis in axes[name]}) for name, key in chosen.items()})


def _learns_less(plugin: type[Factorization]) -> bool:
    return plugin.trained_rank or plugin.trained_sparse


def _top(axis: Axis) -> float:
    return int(axis.high) if axis.integer else axis.high


def _direct_bases(model: nn.Module) -> Any:
    return lambda name: DirectBases(weight_of(model, name), groups=groups_of(model, name))


def _require_the_same(model: nn.Module, problem: Problem) -> None:
    """Over-parameterized means that nothing is lost: each layer is its weight, to rounding.

    Rounding is taken as the root of the dtype's machine epsilon, relative to the weight's norm: three orders of
    magnitude above what one product of factors loses, and far below what a cut loses.
    """
    for name in problem.inventory.layers:
        module, weight = layer_in(model, name), weight_of(problem.original, name)
        if not isinstance(module, Factorization):
            continue
        with torch.no_grad():
            distance, norm = float((module.dense() - weight).norm()), float(weight.norm())
        if not distance <= torch.finfo(weight.dtype).eps ** 0.5 * norm:
            values = ", ".join(f"{axis} {value:g}" for axis, value in module.values.items())
            raise LayerError(
                f"An over-parameterized network computes what the dense one does; layer {name!r} as "
                f"{type(module).__name__} with {values} is off by "
                f"{distance / norm if norm else distance:.2g} of its weight. Name another one in [overparameterized] "
                "factorization, such as svd or tucker2."
            )


# ---- the file --------------------------------------------------------------------------------------------


def _training(study: Study) -> TrainingSettings:
    own = study.overparameterized
    return study.training.model_copy(update={"epochs": own.epochs, "learning_rate": own.learning_rate})


def _file_name(problem: Problem) -> str:
    """By all that the network is made from and by, except the data; the training epochs of the trials play no part."""
    study = problem.study
    about = {
        "weights": problem.weights,
        "point": full_rank(problem).key,
        "plugins": {name: plugin_version(name, study.folder) for name in problem.plugins},
        "orthogonality": study.overparameterized.orthogonality,
        "ordered": study.overparameterized.ordered,
        "training": _training(study).model_dump(mode="json", exclude={"ordered"}),
        "rng seed": study.study.seed,
        "task": study.task.model_dump(mode="json"),
        "code": task_code(study),
        "software": software(),
    }
    return f"overparameterized-3-{digest({str(about): torch.empty(0)}).hex()}"
