"""Tensors to bytes and back: grids, priors, coders, and the container that holds a coded model."""

from __future__ import annotations

from rank_search.coding.grid import STEPS_PER_OCTAVE, Grid, harmonics
from rank_search.coding.payload import decode, encode

__all__ = [
    "STEPS_PER_OCTAVE",
    "Grid",
    "decode",
    "encode",
    "harmonics",
]
