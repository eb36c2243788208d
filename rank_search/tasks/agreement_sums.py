"""The measures of agreement, summed over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from rank_search.tasks.calibration import wide
from rank_search.tasks.supervised import teacher_distance

_LEAST: Final = 1e-30


def relative_error(outputs: Sequence[Tensor], aims: Sequence[Tensor]) -> Tensor:
    """‖ŷ − y‖²/‖y‖² of all outputs together, with a gradient.

    Symbols: ŷ, `outputs`, and y, `aims`, tensor by tensor. Computed in float32 or wider. ‖y‖² is at least 10⁻³⁰, so
    that equal outputs give 0, also where they are zero. NaN gives NaN. O(n), n outputs.

    >>> import torch
    >>> float(relative_error([torch.tensor([3.0]), torch.tensor([1.0])], [torch.tensor([1.0]), torch.tensor([1.0])]))
    2.0
    """
    pairs = [(wide(one), wide(other)) for one, other in zip(outputs, aims, strict=True)]
    error = torch.stack([(one - other).square().sum() for one, other in pairs]).sum()
    return error / torch.stack([other.square().sum() for _, other in pairs]).sum().clamp_min(_LEAST)


@final
@dataclass
class AgreementSums:
    """Sums over all predictions so far, in float64.

    Symbols: y, the dense model's outputs, and ŷ, another's; p and q, the softmax of both over the last dimension, where
    they are logits. `kl` is the mean over predictions of Σ p·ln(p/q), in nats; `disagreement` the share of them with
    another arg max (the first one on ties); `output_error` Σ‖ŷ − y‖²/Σ‖y‖². Equal outputs give 0 for all three, also
    where they are zero; where only y is zero the error is infinite. NaN gives NaN.

    >>> import torch
    >>> sums = AgreementSums()
    >>> sums.add([torch.tensor([[3.0, 1.0]])], [torch.tensor([[1.0, 1.0]])], classes=True)
    >>> {name: round(value, 4) for name, value in sums.means().items()}
    {'kl': 0.4338, 'disagreement': 0.0, 'output_error': 2.0}
    """

    kl: float = 0.0
    others: float = 0.0
    predictions: int = 0
    error: float = 0.0
    norm: float = 0.0

    def add(self, outputs: Sequence[Tensor], aims: Sequence[Tensor], *, classes: bool) -> None:
        """Take in the outputs of a batch and the dense model's; `classes`: they are one tensor of logits."""
        for one, other in zip(outputs, aims, strict=True):
            ours, theirs = one.double(), other.double()
            self.error += float((ours - theirs).square().sum())
            self.norm += float(theirs.square().sum())
        if classes and (count := outputs[0][..., 0].numel()):
            ours, theirs = outputs[0].double(), aims[0].double()
            self.kl += count * float(teacher_distance(ours, theirs, 1.0).clamp_min(0))
            known = not bool(ours.isnan().any() or theirs.isnan().any())
            self.others += float((ours.argmax(-1) != theirs.argmax(-1)).sum()) if known else math.nan
            self.predictions += count

    def means(self) -> dict[str, float]:
        """The measures, by name."""
        alike = 0.0 if self.error == 0 else math.inf
        found = {"output_error": self.error / self.norm if self.norm else alike}
        if not self.predictions:
            return found
        return {"kl": self.kl / self.predictions, "disagreement": self.others / self.predictions, **found}
