"""A picture of many images, for a person to look at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from rank_search.errors import SourceError
from rank_search.layers import tensors_of

_MOST: Final = 64
_LEAST_PIXELS: Final = 64
"""Of an image's longer side in the picture."""


def contact_sheet(images: Tensor | Iterable[object], path: str | Path, *, most: int = _MOST) -> None:
    """Draw images side by side into a picture, each from its own least number (black) to its largest (white).

    Images are channels × rows × columns: three channels are red, green and blue; of others the mean is drawn in gray.
    Of a volume the middle slice is drawn, and a signal, channels × length, with a row for each channel.

    Args:
        images: a batch of them, or batches; of a batch that is no tensor its first tensor.
        path: of the picture, .png.
        most: so many are drawn, the first ones.

    Raises:
        SourceError: there is no image.
    """
    from matplotlib.image import imsave

    pictures = [_picture(each.float().cpu()) for each in _first(images, most)]
    if not pictures:
        raise SourceError("There is no image to draw: images are batches × channels × rows × columns.")
    scale = max(1, -(-_LEAST_PIXELS // max(pictures[0].shape[:2])))
    framed = [
        torch.nn.functional.pad(
            each.repeat_interleave(scale, 0).repeat_interleave(scale, 1), (0, 0, 1, 1, 1, 1), value=1.0
        )
        for each in pictures
    ]
    across = math.ceil(math.sqrt(len(framed)))
    framed += [torch.ones_like(framed[0])] * (-len(framed) % across)
    rows = [torch.cat(framed[start : start + across], 1) for start in range(0, len(framed), across)]
    imsave(Path(path), torch.cat(rows).numpy(), format="png")


def _first(images: Tensor | Iterable[object], most: int) -> list[Tensor]:
    found: list[Tensor] = []
    for batch in [images] if isinstance(images, Tensor) else images:
        first = next((each for each in tensors_of(batch) if each.dim() > 1), None)
        found += [] if first is None else list(first.detach()[: most - len(found)])
        if len(found) == most:
            break
    return found


def _picture(image: Tensor) -> Tensor:
    """Rows × columns × red, green and blue, from 0 to 1."""
    if image.dim() < 3:
        image = image.reshape(1, -1, image.shape[-1])
    while image.dim() > 3:
        image = image[:, image.shape[1] // 2]
    colored = image if len(image) == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    low, high = colored.min(), colored.max()
    return ((colored - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0)
