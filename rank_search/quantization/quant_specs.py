"""Which tensors are rounded, what shares a prior, and what has its own step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rank_search.coding import harmonics
from rank_search.layers import Factorization, adds_up, components, not_stored
from rank_search.quantization.batchnorm import canonical_norms
from rank_search.quantization.settings import CodingSettings, StepsKind


@dataclass(frozen=True)
class QuantizationSpec:
    """How one tensor is rounded.

    Attributes:
        steps: shape of its steps, each size 1 or the tensor's.
        frequencies: whether the numbers are those of the kernel's spatial frequencies.
        group: whose prior it shares.
    """

    name: str
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    frequencies: bool
    group: str

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def step_count(self) -> int:
        return math.prod(self.steps)


def latents(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that is rounded and coded, by name: all that is stored and has dimensions.

    But for the vectors of batch norms, which are rounded when their statistics are final (see `canonical_norms`).
    Complex and whole numbers are kept as they are.
    """
    kept_out = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Factorization)
        for parameter in not_stored(module).values()
    }
    kept_out |= {id(parameter) for norm in canonical_norms(model).values() for parameter in norm.parameters()}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and parameter.dim() and parameter.numel() and id(parameter) not in kept_out
    }


def weight_count(model: nn.Module) -> int:
    """Scalars in parameters of two or more dimensions: what the entropy penalty of a model is divided by."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.dim() >= 2)


def component_modes(model: nn.Module) -> dict[str, int]:
    """The mode of each factor along which its components lie, where there is one, by the parameter's name.

    It is the first one (see `components`); none where they do not add up to the weight (see `adds_up`).
    """
    found: dict[str, int] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, Factorization):
            for axis in (each for each in module.values if adds_up(module, each)):
                for name, modes in components(module, axis).items():
                    found.setdefault(f"{prefix}.{name}" if prefix else name, modes[0])
    return found


def quantization_specs(
    tensors: Mapping[str, Tensor], coding: CodingSettings, modes: Mapping[str, int]
) -> list[QuantizationSpec]:
    """How each tensor is rounded, those of a group beside each other."""
    found = [
        QuantizationSpec(
            name,
            shape := tuple(tensor.shape),
            _step_shape(shape, coding.steps, modes.get(name)),
            coding.steps == "frequency" and _has_pixels(shape),
            name if coding.grouping == "tensor" else _kind(name, shape),
        )
        for name, tensor in tensors.items()
    ]
    groups = list(dict.fromkeys(lattice.group for lattice in found))
    return sorted(found, key=lambda lattice: groups.index(lattice.group))


def _kind(name: str, shape: tuple[int, ...]) -> str:
    """Such as `weight 3x3`, `weight`, `bias`, or the name of a factor."""
    own = name.rpartition(".")[2]
    if len(shape) == 1:
        return f"{own} vector"
    return f"{own} {'x'.join(map(str, shape[2:]))}" if _has_pixels(shape) else own


def _has_pixels(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and math.prod(shape[2:]) > 1


def _step_shape(shape: tuple[int, ...], steps: StepsKind, mode: int | None) -> tuple[int, ...]:
    if steps == "frequency" and _has_pixels(shape):
        return (1, 1, *shape[2:])
    if steps == "channel" and len(shape) > 1:
        mode = 0
    elif steps != "component":
        mode = None
    return tuple(size if place == mode else 1 for place, size in enumerate(shape))


def to_frequencies(kernels: Tensor, back: bool = False) -> Tensor:
    """The spatial frequencies of kernels (the last two modes), or back from them, as one matrix product.

    Fast where `rank_search.coding.transformed` is the same on every machine; they agree but for rounding.
    """
    basis = torch.from_numpy(_basis(*kernels.shape[-2:])).to(kernels)
    return (kernels.flatten(-2) @ (basis if back else basis.T)).view(kernels.shape)


@cache
def _basis(rows: int, columns: int) -> NDArray[np.float64]:
    return np.asarray(np.kron(harmonics(rows), harmonics(columns)), dtype=np.float64)
