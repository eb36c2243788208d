"""On which scale a network takes its inputs: pixels from 0 to 255, from 0 to 1, or normalized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import RankSearchError, SourceError
from rank_search.layers import forward
from rank_search.sources.input_form import InputForm
from rank_search.sources.norm_statistics import norm_inputs, norms_distance, stored_norms

_DEVIATIONS: Final = [2.0**power for power in (0, *range(1, 9), *range(-1, -7, -1))]
_MEANS: Final = (0.0, 1.0, -1.0, 2.0, -2.0)
"""In deviations."""
_EXAMPLES: Final = 16


@final
@dataclass(frozen=True)
class InputScale:
    """What standard numbers are times the deviation, plus the mean."""

    mean: float
    deviation: float

    def of(self, standard: Tensor) -> Tensor:
        """These numbers on the scale."""
        return self.mean + self.deviation * standard


UNIT: Final = InputScale(0.0, 1.0)


@torch.no_grad()
def fitting_scale(model: nn.Module, form: InputForm) -> InputScale:
    """The scale on which noise leaves the batch norms' statistics nearest to the stored ones, Σ KL over the norms.

    Looked for among deviations 2⁻⁶ … 2⁸ with means of 0, ±1 and ±2 deviations. Complexity: 75 forwards of 16 examples.

    Raises:
        SourceError: the model does not run, none of its batch norms does, or nothing finite comes to them.
    """
    noise = form.noise(_EXAMPLES, torch.Generator().manual_seed(0))
    scales = [InputScale(mean * deviation, deviation) for deviation, mean in product(_DEVIATIONS, _MEANS)]
    found = {scale: _distance(model, form, [scale.of(each) for each in noise]) for scale in scales}
    best = min(found, key=found.__getitem__)
    if math.isinf(found[best]):
        raise SourceError(
            "What comes to the model's batch norms, or what they have stored, is not finite, whatever the scale of its "
            "inputs. Look for NaN or infinity in its weights and in the statistics of its batch norms."
        )
    return best


def _distance(model: nn.Module, form: InputForm, numbers: Sequence[Tensor]) -> float:
    with norm_inputs(stored_norms(model)) as seen:
        run_on_made(model, form, numbers)
    if not seen.norms:
        raise SourceError(
            "None of the model's batch norms runs on the example, so no inputs can be made to agree with them. Use the "
            "source analytic or none."
        )
    found = float(norms_distance(seen, "kl", 0.0, 0.0))
    return found if math.isfinite(found) else math.inf


def run_on_made(model: nn.Module, form: InputForm, numbers: Sequence[Tensor]) -> Any:
    """The model's outputs on inputs of these numbers.

    Raises:
        SourceError: it does not run on them.
    """
    try:
        return forward(model, form.filled(numbers))
    except RankSearchError:
        raise
    except Exception as error:
        raise SourceError(
            f"The model does not run on a batch of {numbers[0].shape[form.along]} made-up inputs; its forward raised "
            f"{type(error).__name__}: {error}. It has to run on any number of examples."
        ) from error
