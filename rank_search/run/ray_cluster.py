"""What is made once for a search on Ray, and how workers there come to it.

The layers' spectra, bases and priors are computed in parallel on the cluster, where the bases stay: a worker takes
those of a layer from its node's shared memory, which fetches them at most once. The task (model and data) is made
in the driver and goes the same way, so nodes need the Python packages and nothing else.
"""

from __future__ import annotations

import logging
import secrets
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError, LaunchError
from rank_search.launch import Executor, LaunchSettings, Runner, WorkerRecipe
from rank_search.layers import Bases, Layer, Plugins, Unfolding, copied_to, groups_of, weight_of
from rank_search.point import Artifact
from rank_search.priors import AxisPrior, CachedBases, PriorSettings, SpectraCache, axis_priors, user_cache_folder
from rank_search.run.preparation import prepare
from rank_search.run.worker import Workplace, log_as_worker, make_context, run_job, with_dense
from rank_search.study import Problem, Study, device_of, placed
from rank_search.tasks import LossPass, Task, to_device
from rank_search.trials import TrialContext

if TYPE_CHECKING:
    from rank_search.launch import Cluster, SharedObject

_WHOLE: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of so many bytes."""


@final
@dataclass(frozen=True)
class SentTensor:
    """A tensor as Ray hands it out without copying: its bits as whole numbers, as NumPy lacks types such as bfloat16.

    Attributes:
        bits: of the tensor's shape.
        dtype: of the tensor.
    """

    bits: NDArray[Any]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> SentTensor:
        return cls(tensor.cpu().view(_WHOLE[tensor.element_size()]).numpy(), tensor.dtype)

    def tensor(self) -> Tensor:
        """On the same memory; it is read-only, and nobody who takes bases writes to it."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(self.bits).view(self.dtype)


Sent = Mapping[str, Mapping[str, SentTensor]]
"""Decompositions by name."""

_MOMENTS: Final = "moments"
"""Stands among the decompositions for the second moments that are known of the layer."""

_SEEN: Final = ("inputs", "gradients")
"""Their names, in the order in which bases are made of them."""

_steps: Final = logging.getLogger("rank_search.steps")

PROBE: Final = ".probe"
"""How the name of the file ends by which workers know that they are in the right place."""


@contextmanager
def on_cluster(study: Study, task: Task | None, launch: LaunchSettings) -> Iterator[Workplace]:
    """Connect to the cluster, prepare the study with its help, and make the way to its workers.

    The driver's task is on the CPU: what is sent to a node can be read there whatever devices it has.
    """
    _check_device(launch)
    if launch.address:
        _steps.info("Connecting to Ray at %s", launch.address)
    else:
        _steps.info("Connecting to Ray, or starting it on this machine, which takes a minute or two")
    from rank_search.launch import Cluster

    with Cluster(launch.address) as cluster:
        workers = launch.workers or cluster.room(launch)
        reader = _Reader(cluster)
        prepared = prepare(study.launched({"device": "cpu"}), task, reader)
        context = make_context(prepared.problem, prepared.bases, prepared.batches)
        with ExitStack() as probes:
            made = _Workers(cluster, reader.bases, launch, workers, probes)
            yield Workplace(prepared, context, partial(made.executor, prepared.problem, context))


class _Reader:
    """Reads all layers' priors on the cluster, and keeps hold of the bases there."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.bases: dict[str, SharedObject[Sent]] = {}

    def __call__(self, problem: Problem, bases: Mapping[str, CachedBases]) -> tuple[AxisPrior, ...]:
        from rank_search.launch import ship

        ship(problem.study.folder)
        calls = []
        for name, layer in problem.inventory.layers.items():
            plugins = {key: problem.plugins[key] for key in problem.choices[name]}
            weight, settings = weight_of(problem.model, name), problem.study.priors
            seen = bases[name].moment, bases[name].gradients
            calls.append((layer, weight, seen, plugins, problem.unfoldings(name), settings))
        answers = self._cluster.spread(_read_layer, calls)
        self.bases = {name: large for name, (_, large) in zip(problem.inventory.layers, answers, strict=True)}
        return tuple(prior for priors, _ in answers for prior in priors)


def _read_layer(
    layer: Layer,
    weight: Tensor,
    seen: tuple[Tensor | None, Tensor | None],
    plugins: Plugins,
    unfoldings: tuple[Unfolding, ...],
    settings: PriorSettings,
) -> tuple[tuple[AxisPrior, ...], Sent]:
    """On the cluster: one layer's priors, and every decomposition that a fit may ask for.

    Args:
        seen: the moments of the layer's inputs and of the gradients at its outputs, as far as they are known.
    """
    torch.set_num_threads(1)
    bases = SpectraCache(user_cache_folder()).bases(layer.name, weight, *seen, layer.groups)
    priors = axis_priors(layer, plugins, bases, settings)
    bases.decompose(unfoldings)
    known = {name: each for name, each in zip(_SEEN, seen, strict=True) if each is not None}
    large = {**bases.decompositions, _MOMENTS: known}
    return priors, {name: {key: SentTensor.of(each) for key, each in found.items()} for name, found in large.items()}


# ---- workers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where trials leave their files, and a file there by which a worker knows that it is in the right place."""

    artifacts: ArtifactStore
    token: Artifact

    def require_same(self) -> None:
        try:
            self.artifacts.read(self.token)
        except ArtifactError as error:
            raise LaunchError(
                f"The worker on {socket.gethostname()} does not see in {self.artifacts.location} what the driver wrote "
                f"there: {error} Share that folder among all nodes, or set [study] artifacts = "
                '"s3://BUCKET/PREFIX" (docs/cluster.md).'
            ) from error

    def remove_token(self) -> None:
        with suppress(ArtifactError):  # a later run sweeps it up
            self.artifacts.delete(self.token.location)


@final
@dataclass(frozen=True)
class _ClusterRecipe(WorkerRecipe[TrialContext, _Place]):
    """A worker on any node: all that trials share comes from its node's shared memory."""

    study: str
    shared: SharedObject[TrialContext]
    bases: Mapping[str, SharedObject[Sent]]
    launch: LaunchSettings

    def init(self) -> None:
        torch.set_num_threads(self.launch.torch_threads)
        log_as_worker(self.study)

    def load(self, place: int) -> TrialContext:
        context = on_the_device_given(self.shared.get(), self.launch)
        return replace(context, bases=_SharedBases(context.dense, self.bases))

    def runner(self, loaded: TrialContext, found: _Place) -> Runner:
        found.require_same()
        return partial(run_job, loaded, found.artifacts)


@final
@dataclass(frozen=True)
class _Workers:
    """What workers on the cluster are made of, but for the study's files and dense model."""

    cluster: Cluster
    bases: Mapping[str, SharedObject[Sent]]
    launch: LaunchSettings
    count: int
    probes: ExitStack

    def executor(
        self, problem: Problem, context: TrialContext, artifacts: ArtifactStore, dense: Mapping[str, float]
    ) -> Executor:
        from rank_search.launch import RayActors

        _steps.info("Starting %d %s on Ray", self.count, "worker" if self.count == 1 else "workers")
        shared = self.cluster.share(
            replace(with_dense(context, problem, dense), bases=_not_here), "the task, with its model and data,"
        )
        place = _Place(artifacts, artifacts.write("probe", "probe", PROBE, secrets.token_bytes(16)))
        self.probes.callback(place.remove_token)
        recipe = _ClusterRecipe(problem.study.name, shared, dict(self.bases), self.launch)
        return RayActors(self.cluster, recipe, place, self.count, self.launch)


def on_the_device_given(context: TrialContext, launch: LaunchSettings) -> TrialContext:
    """What trials share, on the device of a worker: the GPU that Ray has given it, if it was to give one.

    Raises:
        LaunchError: there is none.
    """
    wanted = launch.device if launch.gpus_per_trial or launch.device != "auto" else "cpu"
    task = placed(context.task, context.dense, wanted)
    if task is context.task:
        return context
    device, ordered = device_of(wanted), context.sequential
    is_own = context.dense is context.task.model()
    return replace(
        context,
        task=task,
        dense=task.model() if is_own else copied_to(context.dense, device),
        examples=[to_device(each, device) for each in context.examples],
        sequential=replace(ordered, task=task) if isinstance(ordered, LossPass) else ordered,
    )


def _check_device(launch: LaunchSettings) -> None:
    if ":" in launch.device:
        raise LaunchError(
            f'[launch] device = "{launch.device}" with Ray: Ray chooses the GPU of each worker. Set device = "cuda", '
            "and gpus_per_trial."
        )
    if launch.device == "cuda" and not launch.gpus_per_trial:
        raise LaunchError(
            '[launch] device = "cuda" with Ray, and gpus_per_trial = 0: Ray gives a worker the GPU that is set aside '
            "for it. Set gpus_per_trial, such as 1, or 0.25 for four workers on each."
        )


class _SharedBases:
    """The bases of the layers, by name, from the node's shared memory when first asked for."""

    def __init__(self, model: nn.Module, sent: Mapping[str, SharedObject[Sent]]) -> None:
        self._model, self._sent = model, sent
        self._bases: dict[str, Bases] = {}

    def __call__(self, layer: str) -> Bases:
        if layer not in self._bases:
            sent = self._sent[layer].get()
            known = {name: {key: each.tensor() for key, each in found.items()} for name, found in sent.items()}
            seen = known.pop(_MOMENTS)
            inputs, gradients = (seen.get(name) for name in _SEEN)
            weight, groups = weight_of(self._model, layer), groups_of(self._model, layer)
            self._bases[layer] = SpectraCache(known=known).bases(layer, weight, inputs, gradients, groups)
        return self._bases[layer]


def _not_here(layer: str) -> Bases:
    raise LaunchError(f"The driver has no bases of layer {layer!r}: they are on the cluster, for workers to use.")
