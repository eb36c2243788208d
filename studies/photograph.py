"""The task of studies/photograph.toml: a photograph that comes with scikit-learn, as a small network."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import rank_search as rs

CACHE: Final = Path(__file__).parent / "cache"


def photograph(name: str, crop: int, width: int) -> rs.representations.Signal:
    """`china.jpg` or `flower.jpg`, 640 × 427: its middle, `crop` × `crop` pixels of it, if that is not 0; scaled to
    `width`, if that is not 0."""
    image = Image.fromarray(load_sample_image(name))
    if crop:
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    if width:
        image = image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)
    return rs.representations.read_signal(np.array(image))


def task(
    name: str = "china.jpg", crop: int = 128, width: int = 0, neurons: int = 32, depth: int = 3, steps: int = 2000
) -> rs.Representation:
    """What the study file's factory returns: a SIREN, trained once (minutes), then kept.

    Args:
        name, crop, width: see `photograph`.
        neurons, depth: of the network: larger ones are worth it from about 25 dB on.
        steps: of its training, each on 8,192 random pixels.
    """
    signal = photograph(name, crop, width)
    kept = f"{Path(name).stem}-{crop}-{width}-{neurons}x{depth}-{steps}.safetensors"
    network = rs.representations.trained_once(
        lambda: rs.representations.siren(2, 3, neurons, depth), signal, CACHE / kept, steps=steps
    )
    return rs.Representation(network, signal, batch=8192)
