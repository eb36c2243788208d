"""Fixed symmetries: the weights that a group of moves leaves as they are, and how far another weight is from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, fit_closer


def gap(weight: Float[Tensor, "*shape"], closest: Float[Tensor, "*shape"]) -> float:
    """The equivariance gap ‖W − W_G‖/‖W‖, W_G the closest weight of a symmetry: 0 where W has it, or is zero.

    Where W knows nothing of it, about √(1 − k/n), n the numbers in W and k those that W_G has.

    >>> gap(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    0.8
    """
    wide = weight.detach().to(torch.float64)
    size = torch.linalg.vector_norm(wide)
    return float(torch.linalg.vector_norm(wide - closest.detach().to(wide)) / size) if size > 0 else 0.0


class FixedGroup(Factorization, ABC):
    """W = U·v with a U that is code, of which nothing is stored: weights that each element of a group leaves as it is.

    Zhou, Knowles, Finn, "Meta-learning symmetries by reparameterization" (ICLR 2021), whose U is learned. There is
    nothing to choose: the axis has one value, the number of elements of the group.

    Attributes:
        order: the number of elements of the group.
    """

    any_geometry = True
    order: ClassVar[int]

    @classmethod
    @abstractmethod
    def acts_on(cls, layer: Layer) -> bool:
        """Whether the group moves something in this layer's weight."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("order", cls.order, cls.order),) if cls.acts_on(layer) else ()

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        def project(weight: Tensor, _: Bases) -> None:
            self.project(weight)

        def solve(weight: Tensor, _: Bases, moment: Tensor) -> None:
            self.solve(weight, moment)

        fit_closer(self, weight, bases, project, solve)

    @abstractmethod
    def project(self, weight: Float[Tensor, "out ..."]) -> None:
        """Set v so that W is the mean over the group (Reynolds' projection), the closest to this weight."""

    @abstractmethod
    def solve(self, weight: Float[Tensor, "out ..."], moment: Float[Tensor, "*groups n n"]) -> None:
        """Set v to what is closest in the outputs."""

    @classmethod
    @torch.no_grad()
    def figures(cls, layer: Layer, weight: Tensor) -> Mapping[str, float]:
        """How far the weight is from what the group leaves as it is."""
        form = cls(replace(layer, dtype=torch.float64), order=cls.order).to(weight.device)
        form.project(weight)
        return {"equivariance_gap": gap(weight, form.dense())}
