"""Tensors by name as safetensors, and back."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rank_search.coding.container import TYPES
from rank_search.errors import TrialError


def without_file(state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
    """The tensors of a state dict whose type a trial's files cannot hold, coded or as safetensors; with that type.

    >>> without_file({"real": torch.zeros(2), "complex": torch.zeros(2, dtype=torch.complex128)})
    {'complex': torch.complex128}
    """
    types = {name: tensor.dtype for name, tensor in state.items()}
    refused = {dtype for dtype in types.values() if dtype not in TYPES or not _in_safetensors(dtype)}
    return {name: dtype for name, dtype in types.items() if dtype in refused}


def _in_safetensors(dtype: torch.dtype) -> bool:
    """Which types there are differs from version to version."""
    try:
        safetensors.torch.save({"": torch.empty(0, dtype=dtype)})
    except (KeyError, SafetensorError):
        return False
    return True


def to_safetensors(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as safetensors; tensors that share memory are written out one by one."""
    return safetensors.torch.save(own_copies(state))


def own_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in memory of its own on the CPU, as a file of tensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def from_safetensors(data: bytes) -> dict[str, Tensor]:
    """The state dict in safetensors bytes.

    Raises:
        TrialError: they are no safetensors.
    """
    try:
        loaded: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise TrialError(f"A model artifact is in safetensors format; these bytes are not: {error}.") from error
    return loaded
