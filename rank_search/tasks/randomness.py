"""The global generators: seeded for a trial, and kept so that a training can go on where it was."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_CURRENT: Final = "cuda"
_PYTHON: Final = "python"
_NUMPY: Final = "numpy"
_USUAL: Final = "MT19937"


@contextmanager
def seeded(rng_seed: int) -> Iterator[None]:
    """The global generators of torch, NumPy and Python at a seed, and afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if torch.accelerator.is_available():
            torch.manual_seed(rng_seed)
        else:  # the same a thousand times faster: without, each call is kept, with its stack, for a device to come
            torch.default_generator.manual_seed(rng_seed)
        random.seed(rng_seed)
        if numpy["bit_generator"] == _USUAL:  # NumPy seeds no other one
            np.random.seed(rng_seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def generators() -> dict[str, Tensor]:
    """The state of each global generator: torch's by device, that of the current GPU by no number, NumPy's, Python's.

    What was left on one GPU can be gone on with on another.
    """
    current = {_CURRENT: torch.cuda.get_rng_state()} if torch.cuda.device_count() else {}
    return {
        "cpu": torch.get_rng_state(),
        **current,
        **{f"cuda:{number}": torch.cuda.get_rng_state(number) for number in range(torch.cuda.device_count())},
        _PYTHON: _as_tensor(random.getstate()),
        _NUMPY: _as_tensor(np.random.get_state(legacy=False)),
    }


def set_generators(states: Mapping[str, Tensor]) -> None:
    """Put the generators into these states; those that are not named, such as other machines' devices, stay."""
    torch.set_rng_state(states["cpu"])
    for number in range(torch.cuda.device_count()):
        if (state := states.get(f"cuda:{number}")) is not None:
            torch.cuda.set_rng_state(state, number)
    if torch.cuda.device_count() and _CURRENT in states:
        torch.cuda.set_rng_state(states[_CURRENT])
    if _PYTHON in states:
        version, numbers, gauss = _from_tensor(states[_PYTHON])
        random.setstate((version, tuple(numbers), gauss))
    if _NUMPY in states:
        np.random.set_state(_from_tensor(states[_NUMPY]))


def _as_tensor(state: Any) -> Tensor:
    """Whole numbers, floats and names as JSON, which keeps all of them exactly."""
    text = json.dumps(state, default=lambda array: array.tolist())
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _from_tensor(state: Tensor) -> Any:
    found = json.loads(state.numpy().tobytes())
    return found
