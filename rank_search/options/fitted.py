"""A choice becomes a model: every chosen layer fitted from the bases of its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rank_search.errors import LayerError, TaskError
from rank_search.layers import factorize as factorized
from rank_search.layers import weight_of
from rank_search.options.allocate import Allocation
from rank_search.options.in_order import factorize_in_order
from rank_search.options.of_model import inputs_of
from rank_search.options.table import OptionTable
from rank_search.point import Choice, Point
from rank_search.quantization import reestimate_on
from rank_search.tasks import ForwardPass


@torch.no_grad()
def factorize(
    model: nn.Module,
    choice: Allocation | Point | Mapping[str, Choice],
    table: OptionTable,
    batches: Iterable[Any] | None = None,
    *,
    sequential: bool = False,
) -> nn.Module:
    """The model in which each layer is what was chosen for it: a copy, in evaluation mode, ready to be fine-tuned.

    Every factorized layer is fitted to its dense weight, and to the inputs that the table was made with. All fits are
    slices of the table's bases; nothing is decomposed again.

    Args:
        model: the model that the table was made of; it is not changed.
        choice: an allocation, a point of a search, or a choice for each layer; layers that are not in it stay dense.
        table: as `options` makes it.
        batches: inputs, or pairs of inputs and targets: batch norms take their statistics again on the first
            `LOOKED_AT` of them, as the factorized layers before them give other outputs. None: they stay as they are.

        sequential: whether layers are fitted block by block to what the factorized blocks before them give on these
            batches, instead of to what the dense model gave (see `factorize_in_order`).

    Raises:
        LayerError: the choice does not fit the layers, or the model's weights are not those of the table; nothing is
            built then.
        TaskError: the batches are not what the model takes, or `sequential` has none.

    >>> from rank_search.options.allocate import allocate
    >>> from rank_search.options.of_model import options
    >>> table = options(model := nn.Sequential(nn.Linear(64, 64)), example=torch.zeros(1, 64))
    >>> sum(each.numel() for each in factorize(model, allocate(table, params=0.5), table).parameters())
    1856
    """
    fits = table.fits
    if isinstance(choice, Sequence):
        raise LayerError(
            f"The choice is a front of {len(choice)} allocations, and a model is made of one. Take front[i], or give "
            "allocate() a bound."
        )
    point = Point(choice) if isinstance(choice, Mapping) else choice if isinstance(choice, Point) else choice.point
    for name in (name for name, each in point.layers.items() if not each.is_dense and name in fits.layers):
        _require_same(name, weight_of(model, name), fits.weights(name))
    parts = model, point, fits.layers, fits.plugins, fits.bases
    if not sequential:
        made = factorized(*parts).eval()
        if batches is not None:
            reestimate_on(made, inputs_of(batches, fits.example))
        return made
    if batches is None:
        raise TaskError(
            "sequential=True fits layers to what others give on batches, and there are none. Hand them over."
        )
    inputs = list(inputs_of(batches, fits.example))
    made = factorize_in_order(*parts, ForwardPass(inputs)).eval()
    reestimate_on(made, inputs)
    return made


def _require_same(name: str, weight: Tensor, expected: Tensor) -> None:
    """Refuse a weight that is not the one of the table."""
    one, other = (f"{str(each.dtype).removeprefix('torch.')} on {each.device}" for each in (weight, expected))
    if one != other:
        raise LayerError(
            f"Layer {name!r} is {one}, and was {other} when the option table was made. Make the table again, or bring "
            "the model back there with .to()."
        )
    if not torch.equal(weight, expected):
        raise LayerError(f"Layer {name!r} has other weights than when the option table was made. Make the table again.")
