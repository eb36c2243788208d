"""The bases of a weight whose layer sees other inputs than those that it was decomposed for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final

from torch import Tensor

from rank_search.basics import Float
from rank_search.layers.bases import Bases, Basis, DirectBases, Weighed
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
        self._known, self._moment, self._here = known, moment, DirectBases(weight, moment)

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
        return self._here.outputs()

    def memo(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        return self._here.memo(key, compute)
