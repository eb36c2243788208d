"""Tensors to bytes and back: grids, priors, coders, and the container that holds a coded model."""

from __future__ import annotations

from rank_search.coding.grid import STEPS_PER_OCTAVE, Grid, harmonics
from rank_search.coding.payload import decode, encode
from rank_search.coding.tensors import from_safetensors, own_copies, to_safetensors, without_file
from rank_search.coding.varint import Wire

__all__ = [
    "STEPS_PER_OCTAVE",
    "Grid",
    "Wire",
    "decode",
    "encode",
    "from_safetensors",
    "harmonics",
    "own_copies",
    "to_safetensors",
    "without_file",
]
