"""What all trials share, and the model of any one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from rank_search.errors import TrialError
from rank_search.layers import Bases, Example, Layer, Plugins, skeleton
from rank_search.point import Point
from rank_search.quantization import CodingSettings
from rank_search.tasks import CalibrationPass, Task
from rank_search.training import TrainingSettings
from rank_search.trials.settings import LatencySettings


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a worker share; no trial changes it.

    Attributes:
        task: data, loss and metric.
        dense: the trained dense model.
        layers: the layers that points choose for (`Inventory.layers`).
        plugins: factorization classes by name.
        bases: gives the bases of a layer's weight, by layer name.
        training: how each trial fine-tunes.
        latency: how latency is measured, or None to leave it out.
        dense_latency: seconds of the dense model, which trials of a study share; None: they are measured when needed.
        dense_measured: what has been measured of the dense model; a trial that changes nothing takes it as its own.
            Nothing: it is measured.
        examples: what MACs are counted on; none: the task's example.
        coding: how weights become whole numbers under the entropy penalty.
        sequential: the batches that layers are fitted on block by block (see `factorize_in_order`); None: fits are to
            what the dense model gives.
        round_to: axis values are multiples of it, where a model has settled, too.
        judged: the counted costs that components are weighed by under the sparsity penalty.
        row: how many further results a trial has at the full budget: its model, cut at smaller costs (see `row_of`).
        memory: GiB that a trial may take beyond what the process holds; None: any. See `memory_limited`.
    """

    task: Task
    dense: nn.Module
    layers: Mapping[str, Layer]
    plugins: Plugins
    bases: Callable[[str], Bases]
    training: TrainingSettings = field(default_factory=TrainingSettings)
    latency: LatencySettings | None = None
    dense_latency: float | None = None
    dense_measured: Mapping[str, float] = field(default_factory=dict)
    coding: CodingSettings = field(default_factory=CodingSettings)
    examples: Sequence[Example] = ()
    memory: float | None = None
    sequential: CalibrationPass | None = None
    round_to: int = 1
    judged: tuple[str, ...] = ("params", "macs")
    row: int = 0


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
            f"These weights do not fit the model of this trial's point: {' '.join(str(error).split())} "
            "Are they of another trial, or is the dense model another one?"
        ) from error
    return built.eval()
