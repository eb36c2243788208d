"""Modules that use the weight of a layer in their own way, such as the embedding that a head's weight is tied to."""

from __future__ import annotations

import copy
from typing import Any, final

import torch
from torch import Tensor, nn

from rank_search.layers.layer import Layer


@final
class TiedUse(nn.Module):
    """Stands where a module used a layer's weight, once a form stands where the layer was.

    The factors are the form's, kept once, under the layer's name; a bias of the module's own is kept here.

    Attributes:
        layer: the geometry of the module it stands for.
    """

    def __init__(self, layer: Layer, form: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self._held = (form,)  # in a tuple: no child, whose parameters would have a second name here
        self.bias = nn.Parameter(torch.empty(layer.out_features, dtype=layer.dtype)) if layer.bias else None

    @property
    def source(self) -> nn.Module:
        """The form whose factors it uses."""
        return self._held[0]

    def forward(self, x: Tensor) -> Tensor:
        form: Any = self.source
        return self._looked_up(form, x) if self.layer.one_hot and not form.layer.one_hot else self._as_itself(form, x)

    def _looked_up(self, form: Any, x: Tensor) -> Tensor:
        """Rows of the form's weight."""
        rows: Tensor = form.rows(x)
        if self.layer.padding_idx is None or not torch.is_grad_enabled():
            return rows
        return torch.where((x == self.layer.padding_idx)[..., None], rows.detach(), rows)

    def _as_itself(self, form: Any, x: Tensor) -> Tensor:
        """The form with this module's bias: its forward, without the hooks of the layer."""
        twin = copy.copy(form)
        vars(twin).pop("bias", None)
        twin._parameters = {**form._parameters, "bias": self.bias}
        twin.layer = self.layer
        found: Tensor = twin.forward(x)
        return found

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run it, as PyTorch's own layers are run: their input may be named."""
        if "input" in named:
            inputs = (named.pop("input"), *inputs)
        return super().__call__(*inputs, **named)

    def extra_repr(self) -> str:
        return f"{self.layer.shape}"

    @property
    def weight(self) -> Tensor:
        """That of the layer, as this module had it: the same parameter had the same rows and columns."""
        found: Tensor = self.source.weight  # type: ignore[assignment]
        return found
