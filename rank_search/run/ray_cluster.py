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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError, LaunchError
from rank_search.launch import Executor, LaunchSettings, Runner
from rank_search.layers import Bases, Layer, Plugins, Unfolding, weight_of
from rank_search.point import Artifact
from rank_search.priors import AxisPrior, CachedBases, PriorSettings, SpectraCache, axis_priors, user_cache_folder
from rank_search.run.preparation import Prepared, prepare
from rank_search.run.worker import log_as_worker, make_workbench, run_job, with_dense
from rank_search.study import Problem, Study
from rank_search.tasks import Task
from rank_search.trials import TrialContext

if TYPE_CHECKING:
    from rank_search.launch import Cluster, SharedObject

Arrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""Decompositions by name, as arrays: Ray hands them out without copying."""

_MOMENT: Final = "moment"
"""Stands among the decompositions for the second moment of the layer's inputs."""

_steps: Final = logging.getLogger("rank_search.steps")

PROBE: Final = ".probe"
"""How the name of the file ends by which workers know that they are in the right place."""


@contextmanager
def on_cluster(
    study: Study, task: Task | None, launch: LaunchSettings
) -> Iterator[tuple[Prepared, TrialContext, Callable[[ArtifactStore, Mapping[str, float]], Executor]]]:
    """Connect to the cluster, prepare the study with its help, and make the way to its workers."""
    if launch.address:
        _steps.info("Connecting to Ray at %s", launch.address)
    else:
        _steps.info("Connecting to Ray, or starting it on this machine, which takes a minute or two")
    from rank_search.launch import Cluster

    with Cluster(launch.address) as cluster:
        workers = launch.workers or cluster.room(launch)
        reader = _Reader(cluster)
        prepared = prepare(study, task, reader)
        problem = prepared.problem
        workbench = make_workbench(problem, prepared.bases)
        with ExitStack() as probes:
            make = partial(_workers, problem, cluster, workbench, reader.bases, launch, workers, probes)
            yield prepared, workbench, make


class _Reader:
    """Reads all layers' priors on the cluster, and keeps hold of the bases there."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.bases: dict[str, SharedObject[Arrays]] = {}

    def __call__(self, problem: Problem, bases: Mapping[str, CachedBases]) -> tuple[AxisPrior, ...]:
        from rank_search.launch import ship

        ship(problem.study.folder)
        calls = []
        for name, layer in problem.inventory.layers.items():
            plugins = {key: problem.plugins[key] for key in problem.choices[name]}
            weight, settings = weight_of(problem.model, name), problem.study.priors
            calls.append((layer, weight, bases[name].moment, plugins, problem.unfoldings(name), settings))
        answers = self._cluster.spread(_read_layer, calls)
        self.bases = {name: large for name, (_, large) in zip(problem.inventory.layers, answers, strict=True)}
        return tuple(prior for priors, _ in answers for prior in priors)


def _read_layer(
    layer: Layer,
    weight: Tensor,
    moment: Tensor | None,
    plugins: Plugins,
    unfoldings: tuple[Unfolding, ...],
    settings: PriorSettings,
) -> tuple[tuple[AxisPrior, ...], Arrays]:
    """On the cluster: one layer's priors, and every decomposition that a fit may ask for."""
    torch.set_num_threads(1)
    bases = SpectraCache(user_cache_folder()).bases(layer.name, weight, moment)
    priors = axis_priors(layer, plugins, bases, settings)
    bases.decompose(unfoldings)
    arrays = {
        name: {key: tensor.cpu().numpy() for key, tensor in tensors.items()}
        for name, tensors in bases.decompositions.items()
    }
    return priors, arrays if moment is None else arrays | {_MOMENT: {_MOMENT: moment.cpu().numpy()}}


# ---- workers ---------------------------------------------------------------------------------------------


def _workers(
    problem: Problem,
    cluster: Cluster,
    workbench: TrialContext,
    arrays: Mapping[str, SharedObject[Arrays]],
    launch: LaunchSettings,
    workers: int,
    probes: ExitStack,
    artifacts: ArtifactStore,
    dense: Mapping[str, float],
) -> Executor:
    from rank_search.launch import RayActors

    _steps.info("Starting %d %s on Ray", workers, "worker" if workers == 1 else "workers")
    shared = cluster.share(
        replace(with_dense(workbench, problem, dense), bases=_not_here), "the task, with its model and data,"
    )
    token = artifacts.write("probe", "probe", PROBE, secrets.token_bytes(16))
    probes.callback(_remove, artifacts, token)
    make = partial(_make_runner, problem.study.name, shared, dict(arrays), launch, artifacts, token)
    return RayActors(cluster, make, workers, launch)


def _remove(artifacts: ArtifactStore, token: Artifact) -> None:
    with suppress(ArtifactError):  # a later run sweeps it up
        artifacts.delete(token.location)


def _make_runner(
    study: str,
    shared: SharedObject[TrialContext],
    arrays: Mapping[str, SharedObject[Arrays]],
    launch: LaunchSettings,
    artifacts: ArtifactStore,
    token: Artifact,
) -> Runner:
    """What a worker on the cluster does before its first trial."""
    torch.set_num_threads(launch.torch_threads)
    log_as_worker(study)
    _require_same_place(artifacts, token)
    workbench = shared.get()
    bases = _SharedBases(workbench.dense, arrays)
    return partial(run_job, replace(workbench, bases=bases), artifacts, launch.memory_per_trial)


def _require_same_place(artifacts: ArtifactStore, token: Artifact) -> None:
    try:
        artifacts.read(token)
    except ArtifactError as error:
        raise LaunchError(
            f"Workers leave their files where the driver finds them; the worker on {socket.gethostname()} does not see "
            f"in {artifacts.location} what the driver wrote there: {error} Share that folder among all nodes, or set "
            '[study] artifacts = "s3://BUCKET/PREFIX" (docs/cluster.md).'
        ) from error


class _SharedBases:
    """The bases of the layers, by name, from the node's shared memory when first asked for."""

    def __init__(self, model: nn.Module, arrays: Mapping[str, SharedObject[Arrays]]) -> None:
        self._model, self._arrays = model, arrays
        self._bases: dict[str, Bases] = {}

    def __call__(self, layer: str) -> Bases:
        if layer not in self._bases:
            known = {name: _tensors(found) for name, found in self._arrays[layer].get().items()}
            moment = known.pop(_MOMENT, {}).get(_MOMENT)
            self._bases[layer] = SpectraCache(known=known).bases(layer, weight_of(self._model, layer), moment)
        return self._bases[layer]


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Tensors on the same memory; it is read-only, and nobody who takes bases writes to them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {key: torch.from_numpy(array) for key, array in arrays.items()}


def _not_here(layer: str) -> Bases:
    raise LaunchError(f"The bases of layer {layer!r} are on the cluster; a worker asks for them there.")
