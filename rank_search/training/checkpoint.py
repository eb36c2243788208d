"""A training at one moment as bytes: tensors in safetensors format, numbers and names as JSON. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from rank_search.coding import from_safetensors, to_safetensors
from rank_search.errors import CheckpointError, TrialError

_ABOUT: Final = "about"


@final
@dataclass(frozen=True)
class Checkpoint:
    """A training at one moment.

    Attributes:
        about: whose it is and how far it is, as JSON data.
        parts: the tensors of the model, the optimizers, the quantizer, the averaged weights and the generators.
    """

    about: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Tensor]]

    def to_bytes(self) -> bytes:
        """All of it in one safetensors file, which `from_bytes` reads."""
        text = json.dumps(self.about, sort_keys=True).encode()
        tensors = {f"{part}/{name}": tensor for part, named in self.parts.items() for name, tensor in named.items()}
        return to_safetensors({_ABOUT: torch.frombuffer(bytearray(text), dtype=torch.uint8), **tensors})

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Read it back.

        Raises:
            CheckpointError: these bytes are no checkpoint.
        """
        try:
            tensors = from_safetensors(data)
            about = json.loads(tensors.pop(_ABOUT).numpy().tobytes())
        except (TrialError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"These bytes are no checkpoint of a trial: {error!r}. Start the trial over."
            ) from error
        parts: dict[str, dict[str, Tensor]] = {}
        for path, tensor in tensors.items():
            part, _, name = path.partition("/")
            parts.setdefault(part, {})[name] = tensor
        return cls(about, parts)

    def part(self, name: str) -> Mapping[str, Tensor]:
        """The tensors of one part; none if it has none."""
        return self.parts.get(name, {})
