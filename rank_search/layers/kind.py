"""The contract for kinds of layers: how a module is read, operated with another weight, and written back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from rank_search.layers.layer import Layer


class LayerKind(ABC):
    """What some classes of modules have in common: one linear operation, with one weight and perhaps a bias.

    Installed by an entry point of the group `rank_search.layers`, whose name is the `kind` of its layers. The laws in
    `rank_search.testing.LayerKindLaws` hold for every kind. A kind has no state: one instance serves all layers.
    """

    # ---- must ------------------------------------------------------------------------------------------

    @abstractmethod
    def classes(self) -> tuple[type[nn.Module], ...]:
        """The classes of its modules. What is not imported yet has no modules, and need not be imported for this."""

    @abstractmethod
    def geometry(self, module: nn.Module) -> Layer:
        """The module without its numbers; `name` and `kind` may be left empty, they are filled in."""

    @abstractmethod
    def operate(self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        """The layer's operation with another weight, of any channel numbers: out × in/groups, then the kernel.

        Where there is a kernel, `groups` = the weight's channels makes it depthwise.
        """

    @abstractmethod
    def mix(self, layer: Layer, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        """An out × in matrix applied to the channels of what the operation gives, or takes, at every position.

        Of a layer with groups it is out × in/groups.
        """

    @abstractmethod
    def columns(self, layer: Layer, x: Tensor, most: int) -> Tensor:
        """What the weight, as out × (in·kernel), is multiplied with: rows × (in·kernel), at most about `most` rows.

        Where inputs are one-hot (`one_hot`), the place of the one in each row instead: a vector of whole numbers.
        """

    @abstractmethod
    def channels(self, layer: Layer) -> int:
        """The dimension of the channels in what the operation gives, counted from the end, such as -1."""

    # ---- may -------------------------------------------------------------------------------------------

    def refusal(self, module: nn.Module) -> str:
        """Why this module of its classes is no layer all the same; empty if it is one."""
        return ""

    def parts(self, module: nn.Module, sizes: Sequence[int]) -> tuple[nn.Module, ...]:
        """Layers with so many of its outputs each, in their order, with its very numbers; nothing: it cannot be cut."""
        return ()

    def weight(self, module: nn.Module) -> Tensor:
        """The module's `weight` as out × in, then the kernel: a view of it, so that writing there changes the layer."""
        return module.get_parameter("weight")

    def as_kept(self, weight: Tensor) -> Tensor:
        """A weight, out × in, then the kernel, as the modules keep theirs: what `weight` undoes."""
        return weight

    def one_hot(self) -> bool:
        """Whether inputs are whole numbers, each standing for the unit vector of that place: nothing to mix."""
        return False
