"""Networks that stand for signals: `rs.Representation` is their task, `rs.representations` has networks for it.

A radiance field stands for a scene; its task is `rs.representations.Scene`.

signal = rs.representations.read_signal("photograph.png")
network = rs.representations.trained_once(lambda: rs.representations.siren(2, 3), signal, "photograph.safetensors")
task = rs.Representation(network, signal)

picture = rs.representations.render(rs.load("photograph.rsz"), (512, 768))  # at any resolution
"""

from __future__ import annotations

from rank_search.representations.codecs import codec_curves
from rank_search.representations.networks import FeatureGrid, Fourier, Several, Sine, fourier, grid, several, siren
from rank_search.representations.radiance import RadianceField, along, radiance_field, ray_weights, render_views
from rank_search.representations.rendering import coordinates, render
from rank_search.representations.representation import Representation
from rank_search.representations.scene import Scene
from rank_search.representations.signals import Signal, psnr, read_signal
from rank_search.representations.trained_network import trained_once, trained_scene
from rank_search.representations.views import Views, looking_at, rays

__all__ = [
    "FeatureGrid",
    "Fourier",
    "RadianceField",
    "Representation",
    "Scene",
    "Several",
    "Signal",
    "Sine",
    "Views",
    "along",
    "codec_curves",
    "coordinates",
    "fourier",
    "grid",
    "looking_at",
    "psnr",
    "radiance_field",
    "ray_weights",
    "rays",
    "read_signal",
    "render",
    "render_views",
    "several",
    "siren",
    "trained_once",
    "trained_scene",
]
