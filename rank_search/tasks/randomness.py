"""Torch's global generators: seeded for a trial, and kept so that a training can go on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def seeded(rng_seed: int) -> Iterator[None]:
    """Torch's global generators at a seed, and afterwards as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if torch.accelerator.is_available():
            torch.manual_seed(rng_seed)
        else:  # the same a thousand times faster: without, each call is kept, with its stack, for a device to come
            torch.default_generator.manual_seed(rng_seed)
        yield


def generators() -> dict[str, Tensor]:
    """The state of each of torch's global generators, by device."""
    return {"cpu": torch.get_rng_state()} | {
        f"cuda:{number}": torch.cuda.get_rng_state(number) for number in range(torch.cuda.device_count())
    }


def set_generators(states: Mapping[str, Tensor]) -> None:
    """Put the generators of this machine's devices into these states; those of other devices stay as they are."""
    torch.set_rng_state(states["cpu"])
    for number in range(torch.cuda.device_count()):
        if (state := states.get(f"cuda:{number}")) is not None:
            torch.cuda.set_rng_state(state, number)
