"""PyTorch's fast paths multiply with the weights of a module's layers, whose own forwards do not run then."""

from __future__ import annotations

from torch import nn

from rank_search.layers.factorization import Factorization
from rank_search.layers.opener import Opened


def step_aside(model: nn.Module) -> None:
    """Switch off, in this model, the fast path of every module in which one is a factorization or opened.

    The fused operation needs a plain weight; and a nested tensor, which only the fast path understands, would come to
    the layers. What comes out is what comes out in training mode and of an export: at padded positions, which the fast
    path fills with zeros, the layers' own numbers. These are the switches that the modules' own constructors set.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _is_factorized(module):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and _is_factorized(module):
            module.use_nested_tensor = False


def step_back(model: nn.Module, dense: nn.Module) -> None:
    """The same fast paths as in the dense model, where no layer is a factorization any more, and nothing is opened."""
    for name, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerEncoder) and not _is_factorized(module):
            theirs = vars(dense.get_submodule(name))
            for switch in vars(module).keys() & {"activation_relu_or_gelu", "use_nested_tensor"}:
                setattr(module, switch, theirs[switch])


def _is_factorized(module: nn.Module) -> bool:
    return any(isinstance(inner, Factorization | Opened) for inner in module.modules())
