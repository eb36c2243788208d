"""What image codecs make of the same picture: encoded, decoded and compared, for every byte of their files."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from rank_search.representations.signals import Signal, decibels

QUALITIES: Final = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 90)

_CODECS: Final[Mapping[str, tuple[str, int, Mapping[str, Any]]]] = {
    "JPEG": ("jpg", 65_500, {"optimize": True}),
    "WebP": ("webp", 16_383, {"method": 6}),
    "AVIF": ("avif", 65_536, {"speed": 6}),
}
"""What Pillow calls each, the most pixels of a side, and how it is written."""


def codec_curves(
    signal: Signal | Sequence[Signal], qualities: Iterable[int] = QUALITIES
) -> dict[str, list[dict[str, float]]]:
    """What JPEG, WebP and, where Pillow has it, AVIF measure on an image, by name, from the smallest file.

    Each point is a file that was written and read again: `psnr` in decibels, `bits` of the whole file and
    `bits_per_sample`, and its `quality`. Of several images of one size each is a file, all of one quality, and the
    measurements are of all of them. Points that another of the codec beats in both are left out, and those without any
    error, whose decibels are infinite; so are codecs without a point, or for smaller images only. Signals that are no
    images have no curves.
    """
    from PIL import features

    signals = (signal,) if isinstance(signal, Signal) else tuple(signal)
    if not all(each.is_image for each in signals):
        return {}
    largest, chosen = max(signals[0].sizes), tuple(qualities)
    names = [name for name, (module, most, _) in _CODECS.items() if features.check(module) and largest <= most]
    curves = {name: list(_best(_point(signals, name, quality) for quality in chosen)) for name in names}
    return {name: curve for name, curve in curves.items() if curve}


def _point(signals: Sequence[Signal], name: str, quality: int) -> dict[str, float]:
    found = [_coded(each, name, quality) for each in signals]
    bits = 8.0 * sum(size for size, _ in found)
    error = sum(error for _, error in found) / len(found)
    samples = sum(each.samples for each in signals)
    seen = decibels(signals[0], error)  # all images have one range
    return {"psnr": seen, "bits": bits, "bits_per_sample": bits / samples, "quality": float(quality)}


def _coded(signal: Signal, name: str, quality: int) -> tuple[int, float]:
    """The bytes of one file, and the mean squared error of what is read from it."""
    from PIL import Image

    values, written = (signal.values * 255).round().clamp(0, 255).to(torch.uint8).numpy(), io.BytesIO()
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    image.save(written, name, quality=quality, **_CODECS[name][2])
    with Image.open(written) as read:
        found = torch.from_numpy(np.array(read.convert(image.mode))).float() / 255
    apart = found.reshape(signal.values.shape).double() - signal.values.double()
    return len(written.getvalue()), float(apart.square().mean())


def _best(points: Iterable[dict[str, float]]) -> Iterator[dict[str, float]]:
    best = 0.0
    for point in sorted(points, key=lambda each: (each["bits"], -each["psnr"])):
        if point["psnr"] > best:
            best = point["psnr"]
            if best < math.inf:
                yield point
