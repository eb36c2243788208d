"""The plugin contract: a factorization is a module that stands for a dense weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.errors import ContractError
from rank_search.layers.bases import Bases, Weighed
from rank_search.layers.components import alive
from rank_search.layers.layer import Layer, Unfolding
from rank_search.layers.lazy import LazyWeight
from rank_search.layers.metric import output_error


@dataclass(frozen=True)
class Axis:
    """One number that a factorization lets us choose for a layer.

    Attributes:
        name: `"rank"`, `"rank_out"`, `"buckets"`, `"threshold"`, …
        low, high: the smallest and the largest value that makes sense for the layer.
        unfoldings: matrices made from the weight whose rank this axis bounds; their spectra give the rank
            prior. None: the axis has no spectral prior. A function defined at module level or a
            `functools.partial` of one, so that it pickles and names the same unfolding every time.
        integer: whether only whole numbers make sense.
        bound: the rank that the unfoldings may have at a value, where that is not the value itself; it grows with it.
    """

    name: str
    low: float
    high: float
    unfoldings: tuple[Unfolding, ...] = ()
    integer: bool = True
    bound: Callable[[float], int] | None = None

    def rank(self, value: float) -> float:
        """The largest rank that its unfoldings may have at a value.

        >>> Axis("rank", 1, 8).rank(3), Axis("rank", 1, 8, bound=lambda value: int(value) ** 2).rank(3)
        (3, 9)
        """
        return value if self.bound is None else self.bound(value)

    def value_of(self, rank: float) -> float:
        """The smallest whole value at which its unfoldings may have a rank; the largest where none does.

        >>> Axis("rank", 1, 8).value_of(5), Axis("rank", 1, 8, bound=lambda value: int(value) ** 2).value_of(5)
        (5, 3)
        """
        if self.bound is None:
            return rank
        values = range(int(self.low), int(self.high) + 1)
        return values[min(bisect_left(values, rank, key=self.bound), len(values) - 1)]


class Factorization(nn.Module, ABC):
    """A structured weight for one layer, with its own bias when the layer has one.

    What an author must write, in this order: `axes`, `__init__`, `fit`, `dense`. What may be written to be
    faster or better: `forward`, `rows`, `map_outputs`, `scale_outputs`, `frames`, `stored`, `figures`, `apart`,
    `after_step`, `fold`, `kept`. The six laws in `rank_search.testing.FactorizationLaws` hold for every factorization;
    `rank-search plugins check` runs them.

    Attributes:
        layer: the geometry of the layer it stands for.
        values: the axis values it was made with.
        bias: the layer's bias (a parameter), or None.
        any_geometry: whether `axes` is asked about every layer. If not, it is about those whose weight is a matrix or
            that of a two-dimensional convolution.
        trained_sparse: whether training makes weights zero, so that what it stores is not known before: where bits or
            nonzeros are asked for, its parameters do not decide whether it is worth a trial.
        trained_rank: whether training lowers its axis values, so that what it costs is not known before: no cost
            decides whether it is worth a trial.
    """

    any_geometry: ClassVar[bool] = False
    trained_sparse: ClassVar[bool] = False
    trained_rank: ClassVar[bool] = False

    # ---- must ------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        """The numbers to choose for this layer; `()` says that the factorization does not apply to it."""

    def __init__(self, layer: Layer, **values: float) -> None:
        """Allocate the factors, with `self.factor(*shape)`; compute nothing. Must work on the meta device."""
        super().__init__()
        self.layer = layer
        self.values = values
        self.bias = self.factor(layer.out_features) if layer.bias else None

    @abstractmethod
    def fit(self, weight: Tensor, bases: Bases) -> None:
        """Set the factors so that `dense()` comes close to `weight`; the bias is not touched.

        `bases` has the weight's bases ready (see `Bases`); a fit that takes slices of them decomposes nothing.
        """

    @abstractmethod
    def dense(self) -> Tensor:
        """The weight it stands for, in the layer's shape; gradients flow through it."""

    # ---- may -------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """The layer's operation. Default: on `dense()`. Override it with a sequence of small operations.

        The default costs the layer's own MACs: the weight is the same for every input, and can be made once.
        """
        return self.layer.operate(x, self.dense(), self.bias)

    def rows(self, index: Tensor) -> Tensor:
        """Rows of the weight, as out × (in·kernel), by their places: asked where an embedding is tied to the layer.

        Default: rows of `dense()`, all of which is worked out for them. Write it where that can be done without.
        """
        return F.embedding(index, self.dense().flatten(1))

    def map_outputs(self, matrix: Tensor) -> bool:
        """Stand for matrix · W' (over the outputs) instead of W', with as many parameters; False: it cannot.

        Write it, and return True, where a factor carries the outputs: with it fits can know the loss (see `fit_to`).
        """
        return False

    def scale_outputs(self, scales: Tensor) -> bool:
        """Stand for each output times a number instead of W', with as many parameters; False: it cannot.

        As `map_outputs` with a diagonal matrix, which for the tokens of a language model would be a large one.
        """
        return False

    def frames(self) -> Iterable[Tensor]:
        """Matrices whose columns are meant to be orthonormal; the orthogonality penalty acts here."""
        return ()

    def stored(self) -> Iterable[Tensor]:
        """The parameters to store; size and entropy are about them, and the bias. Default: all of them.

        What is left out, such as what only training uses, is zero in the model that is kept, and no part of `dense()`.
        """
        return self.parameters()

    @classmethod
    def figures(cls, layer: Layer, weight: Tensor) -> Mapping[str, float]:
        """Further figures of a layer's weight, by name, that `rank-search priors` lists. Default: none."""
        return {}

    def apart(self) -> Iterable[nn.Parameter]:
        """Parameters that no optimizer moves, no decay and no clipping: `after_step` does. Default: none."""
        return ()

    def after_step(self, share: float) -> None:
        """After each step of the optimizers: move what is `apart`, whose gradients are those of the loss.

        All that it remembers is in parameters and buffers, so that a checkpoint has it. Default: nothing.

        Args:
            share: of the training that this step is: its learning rate over the sum of those of all steps.
        """

    def fold(self) -> None:
        """After training, before its numbers are rounded: what only training needs, such as gates, goes into factors.

        `dense()` stays what it is, to rounding. Default: there is nothing to fold.
        """

    def kept(self) -> Mapping[str, Tensor]:
        """For each axis that owns slices of factors, which of its components are kept once it is trained, as a mask.

        The others are dropped with their slices (see `settled_form`), as far as `dense()` stays the same without them.
        Default: those of which no slice is all zero.
        """
        masks = {axis: alive(self, axis) for axis in self.values}
        return {axis: mask for axis, mask in masks.items() if mask is not None}

    # ---- given -----------------------------------------------------------------------------------------

    def factor(self, *shape: int) -> nn.Parameter:
        """A parameter of that shape in the layer's dtype, not yet set."""
        return nn.Parameter(torch.empty(*shape, dtype=self.layer.dtype))

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run it, as PyTorch's own layers are run: their input may be named."""
        if "input" in named:
            inputs = (named.pop("input"), *inputs)
        return super().__call__(*inputs, **named)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set it; a parameter or a module cannot have the name of what every factorization has."""
        if name in vars(Factorization) and isinstance(value, nn.Parameter | nn.Module):
            raise ContractError(
                f"{type(self).__name__} names a {type(value).__name__} {name!r}, as a method of every factorization is "
                "named. Give it another name."
            )
        super().__setattr__(name, value)

    @property
    def weight(self) -> Tensor:
        """`dense()` as the layer's module had it, for models that read it themselves; worked out only if it is used."""
        like = next((each for each in self.state_dict().values() if each.is_floating_point()), None)
        if like is None:
            return self._kept()
        shape = self.layer.as_kept(torch.empty(self.layer.shape, device="meta")).shape
        return LazyWeight.of(self._kept, shape, like)

    def _kept(self) -> Tensor:
        return self.layer.as_kept(self.dense())

    def extra_repr(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{tuple(self.layer.shape)}, {chosen}"


def axes_of(factorization: type[Factorization], layer: Layer) -> tuple[Axis, ...]:
    """What a factorization lets us choose for a layer; nothing where it is not asked (see `any_geometry`)."""
    return factorization.axes(layer) if factorization.any_geometry or layer.is_plain else ()


def fit_to(form: Factorization, weight: Float[Tensor, "out ..."], bases: Bases) -> None:
    """Fit a form to a weight: to the loss if that is known, else to the outputs, else to the weight itself.

    Where the gradients of the loss are known, the form is fitted to G^½·W and led back by G^−½ (see
    `rank_search.layers.metric`): for the SVD that is the closest of its rank. The fit to the outputs stands where the
    form cannot be led back, and where it has no larger error.
    """
    form.fit(weight, bases)
    if (weighed := bases.weighed) is None or not may_be_led_back(form, weighed):
        return
    before = weighed.error(weight, form.dense())
    form.fit(weighed.weight, weighed.bases)
    if not led_back(form, weighed, weight) or not weighed.error(weight, form.dense()) < before:
        form.fit(weight, bases)


def may_be_led_back(form: Factorization, weighed: Weighed) -> bool:
    """Whether its class says how: else a fit to the loss is for nothing."""
    name = "scale_outputs" if weighed.back.dim() == 1 else "map_outputs"
    return getattr(type(form), name) is not getattr(Factorization, name)


def led_back(form: Factorization, weighed: Weighed, weight: Float[Tensor, "out ..."]) -> bool:
    """Lead a form that was fitted to the loss back to the layer's own outputs; False: it cannot be.

    In float32 at least: nothing is decomposed in narrower types.
    """
    lead = form.scale_outputs if weighed.back.dim() == 1 else form.map_outputs
    wide = torch.promote_types(form.layer.dtype, torch.float32)
    form.to(wide)
    try:
        return lead(weighed.back.to(weight.device, wide))
    finally:
        form.to(form.layer.dtype)


def fit_closer(
    form: Factorization,
    weight: Tensor,
    bases: Bases,
    plain: Callable[[Tensor, Bases], None],
    seen: Callable[[Tensor, Bases, Tensor], None],
) -> None:
    """Fit a form to the weight, or to what the inputs let be seen of it where that has the smaller output error.

    Without a moment, and where neither is smaller, the plain fit stands.

    Args:
        plain: fits the form in place to the weight.
        seen: fits it to the outputs, given the moment too.
    """
    plain(weight, bases)
    if (moment := bases.moment) is None:
        return
    before = output_error(weight, form.dense(), moment)
    seen(weight, bases, moment)
    if not output_error(weight, form.dense(), moment) < before:
        plain(weight, bases)
