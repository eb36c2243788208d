"""Tensors to bytes and back: grids, priors, coders, and the container that holds a coded model."""

from rank_search.coding.grid import NOTCHES, Grid, harmonics, transformed
from rank_search.coding.payload import decode, decode_each, encode
from rank_search.coding.plans import coded_bits

__all__ = ["NOTCHES", "Grid", "coded_bits", "decode", "decode_each", "encode", "harmonics", "transformed"]
