"""What a form leaves out of what is stored: zero from then on, and no part of its weight."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from rank_search.errors import ContractError
from rank_search.layers.factorization import Factorization
from rank_search.layers.fused import tensor_distance

_SAME: Final = 1e-6  # of the largest number: what is left out may have moved the last digits


def not_stored(form: Factorization) -> dict[str, nn.Parameter]:
    """The parameters, by name, that `stored()` does not name; never the bias, which is the layer's.

    Raises:
        ContractError: `stored()` gives something else than the form's own parameters and buffers.
    """
    own = {id(tensor) for tensor in (*form.parameters(), *form.buffers())}
    named = {id(tensor) for tensor in form.stored()}
    if not named <= own:
        raise ContractError(
            f"{type(form).__name__}.stored() gives a tensor that is neither a parameter nor a buffer of the form. What "
            "is stored is what its state dict holds: name parameters, not what is made from them."
        )
    kept = named | {id(form.bias)}
    return {name: parameter for name, parameter in form.named_parameters() if id(parameter) not in kept}


@torch.no_grad()
def drop_not_stored(model: nn.Module) -> None:
    """Set to zero, in every form of a trained model, the parameters that are not stored; a zero takes no room.

    Raises:
        ContractError: a weight is made from one of them.
    """
    for name, form in model.named_modules():
        if isinstance(form, Factorization) and (left_out := not_stored(form)):
            before = form.dense()
            for parameter in left_out.values():
                parameter.zero_()
            if not tensor_distance(before, form.dense()) <= _SAME:
                raise ContractError(
                    f"{type(form).__name__}.stored() leaves out {', '.join(left_out)}, and without the numbers in it "
                    f"the weight of {name or 'the layer'} is another one. What is not stored is zero in the model that "
                    "is kept: name every parameter that dense() uses."
                )
