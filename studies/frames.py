"""The task of studies/frames.toml: frames of a video, each a small network, which share their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import rank_search as rs

CACHE: Final = Path(__file__).parent / "cache"


def pan(name: str, size: int, frames: int, step: float) -> list[rs.representations.Signal]:
    """Frames of `size` × `size` pixels, each a window on a photograph, 400 pixels wide in it, `step` pixels of a frame
    to the right of the one before."""
    image, scale = Image.fromarray(load_sample_image(name)), 400 / size
    left = (image.width - scale * (size + (frames - 1) * step)) / 2
    windows = [(left + scale * step * k, 10.0, left + scale * (size + step * k), 410.0) for k in range(frames)]
    scaled = [image.resize((size, size), Image.Resampling.LANCZOS, box=window) for window in windows]
    return [rs.representations.read_signal(np.array(each)) for each in scaled]


def both(size: int) -> list[rs.representations.Signal]:
    """The middles of the two photographs, 400 × 400 pixels, scaled."""
    return [pan(name, size, 1, 0)[0] for name in ("china.jpg", "flower.jpg")]


def task(
    name: str = "china.jpg",
    size: int = 64,
    frames: int = 8,
    step: float = 2.0,
    neurons: int = 32,
    depth: int = 3,
    steps: int = 2000,
    shared: float = 1.0,
) -> rs.Representation:
    """What the study file's factory returns: as many SIRENs as frames, trained once (minutes), then kept.

    Args:
        name, size, frames, step: see `pan`; of the name "both", see `both`.
        neurons, depth: of each network.
        steps: of their training, each on 1,024 random places of all frames.
        shared: the share of the steps in which all networks have the same weights.
    """
    signals = both(size) if name == "both" else pan(name, size, frames, step)
    kept = f"{Path(name).stem}-{size}-{len(signals)}-{step:g}-{neurons}x{depth}-{steps}-{shared:g}.safetensors"
    networks = rs.representations.trained_once(
        lambda: rs.representations.several(rs.representations.siren(2, 3, neurons, depth), len(signals)),
        signals,
        CACHE / kept,
        steps=steps,
        batch=1024,
        shared=shared,
    )
    return rs.Representation(networks, signals, batch=1024)
