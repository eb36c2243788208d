"""The bases of a weight whose layer sees other inputs than those that it was decomposed for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final

from torch import Tensor

from rank_search.basics import Float
from rank_search.layers.bases import Bases, Basis, Weighed, output_basis
from rank_search.layers.layer import Unfolding
from rank_search.layers.metric import Moment


@final
class OtherInputs(Bases):
    """Known bases for another second moment of the layer's inputs.

    What depends on the weight alone is the known one; what depends on the inputs is made of the moment. What the loss
    sees of the outputs stays as it is known.

    Args:
        weight: of the known bases.
    """

    def __init__(self, weight: Float[Tensor, "out ..."], known: Bases, moment: Moment) -> None:
        self._weight, self._known, self._moment = weight.detach(), known, moment
        self._outputs: Basis | None = None
        self._memo: dict[str, Tensor] = {}

    @property
    def moment(self) -> Moment:
        return self._moment

    @property
    def weighed(self) -> Weighed | None:
        known = self._known.weighed
        return None if known is None else replace(known, bases=OtherInputs(known.weight, known.bases, self._moment))

    def __call__(self, unfolding: Unfolding) -> Basis:
        return self._known(unfolding)

    def outputs(self) -> Basis:
        if self._outputs is None:
            self._outputs = output_basis(self._weight, self._moment)
        return self._outputs

    def memo(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]
