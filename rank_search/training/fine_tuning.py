"""What a fine-tuning is made of, and what ends it early."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rank_search.quantization import Quantizer
from rank_search.training.settings import TrainingSettings


@dataclass(frozen=True)
class Diverged:
    """Training left the finite numbers: where, and at which loss."""

    reason: str


@dataclass(frozen=True)
class EntropyPenalty:
    """The quantizer of a model's latents, and what a bit costs.

    Attributes:
        weight: of one bit, as it enters the loss: λ divided by the dense model's number of weights, so that
            λ means the same at every rank.
    """

    quantizer: Quantizer
    weight: float


@dataclass(frozen=True)
class SparsityPenalty:
    """What components lose of their norm in each step (see `Shrinking`).

    Attributes:
        strength: what the average component loses, in units of the learning rate.
        costs: the counted costs that components are weighed by: "params", "macs", or both.
    """

    strength: float
    costs: tuple[str, ...] = ("params", "macs")


@dataclass(frozen=True)
class FineTuning:
    """What one fine-tuning is made of.

    Attributes:
        orthogonality: strength of the orthogonality penalty; 0 = off.
        entropy: the entropy penalty; None = off.
        teacher: the dense model, in eval mode, that is distilled; None = off. It is not changed.
        sparsity: the penalty on the norms of components; None = off.
        ordered: share of the steps that train one layer without its last components (see `OrderedSteps`); 0 = none.
    """

    settings: TrainingSettings
    orthogonality: float = 0.0
    entropy: EntropyPenalty | None = None
    teacher: nn.Module | None = None
    sparsity: SparsityPenalty | None = None
    ordered: float = 0.0
