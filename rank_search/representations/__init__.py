"""Networks that stand for signals: `rs.Representation` is their task, `rs.representations` has networks for it.

signal = rs.representations.read_signal("photograph.png")
network = rs.representations.trained_once(lambda: rs.representations.siren(2, 3), signal, "photograph.safetensors")
task = rs.Representation(network, signal)

picture = rs.representations.render(rs.load("photograph.rsz"), (512, 768))  # at any resolution
"""

from __future__ import annotations

from rank_search.representations.codecs import codec_curves
from rank_search.representations.networks import FeatureGrid, Fourier, Several, Sine, fourier, grid, several, siren
from rank_search.representations.rendering import coordinates, render
from rank_search.representations.representation import Representation
from rank_search.representations.signals import Signal, psnr, read_signal
from rank_search.representations.trained_network import trained_once

__all__ = [
    "FeatureGrid",
    "Fourier",
    "Representation",
    "Several",
    "Signal",
    "Sine",
    "codec_curves",
    "coordinates",
    "fourier",
    "grid",
    "psnr",
    "read_signal",
    "render",
    "several",
    "siren",
    "trained_once",
]
