"""What image codecs make of the same picture: encoded, decoded and compared, for every byte of their files."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch

from rank_search.representations.signals import Signal, psnr

QUALITIES: Final = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 90)

_CODECS: Final[Mapping[str, tuple[str, int, Mapping[str, Any]]]] = {
    "JPEG": ("jpg", 65_500, {"optimize": True}),
    "WebP": ("webp", 16_383, {"method": 6}),
    "AVIF": ("avif", 65_536, {"speed": 6}),
}
"""What Pillow calls each, the most pixels of a side, and how it is written."""


def codec_curves(signal: Signal, qualities: Iterable[int] = QUALITIES) -> dict[str, list[dict[str, float]]]:
    """What JPEG, WebP and, where Pillow has it, AVIF measure on an image, by name, from the smallest file.

    Each point is a file that was written and read again: `psnr` in decibels, `bits` of the whole file and
    `bits_per_sample`, and its `quality`. Points that another file of the codec beats in both are left out, and files
    without any error, whose decibels are infinite; so are codecs without a point, or for smaller images only. A signal
    that is no image has no curves.
    """
    from PIL import Image, features

    if not signal.is_image:
        return {}
    values = (signal.values * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    chosen = tuple(qualities)
    names = [name for name, (module, most, _) in _CODECS.items() if features.check(module) and max(image.size) <= most]
    curves = {name: list(_best(_point(signal, image, name, quality) for quality in chosen)) for name in names}
    return {name: curve for name, curve in curves.items() if curve}


def _point(signal: Signal, image: Any, name: str, quality: int) -> dict[str, float]:
    from PIL import Image

    written = io.BytesIO()
    image.save(written, name, quality=quality, **_CODECS[name][2])
    bits = 8.0 * len(written.getvalue())
    with Image.open(written) as read:
        found = torch.from_numpy(np.array(read.convert(image.mode))).float() / 255
    seen = psnr(signal, found.reshape(signal.values.shape))
    return {"psnr": seen, "bits": bits, "bits_per_sample": bits / signal.samples, "quality": float(quality)}


def _best(points: Iterable[dict[str, float]]) -> Iterator[dict[str, float]]:
    best = 0.0
    for point in sorted(points, key=lambda each: (each["bits"], -each["psnr"])):
        if point["psnr"] > best:
            best = point["psnr"]
            if best < math.inf:
                yield point
