"""One signal: numbers on a grid of coordinates, from an image, an audio file or an array."""

from __future__ import annotations

import math
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, Union, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rank_search.errors import TaskError

_WHOLE: Final = {1: "u1", 2: "<i2", 4: "<i4"}
"""Types of the samples of a WAV file, by bytes."""

_CHANNELS: Final = (1, 3)
"""Of an image: gray, or red, green and blue."""

Source = Union["Signal", str, Path, NDArray[Any], Tensor]
"""A signal, or where it is read from."""


@final
@dataclass(frozen=True, eq=False)
class Signal:
    """Values on a grid.

    Attributes:
        values: size × … × channels, float32.
        low, high: the range that values may have; a decibel is measured against its width.
        is_image: whether it is a picture of 8 bits, height × width × 1 or 3, 0 to 1.
    """

    values: Tensor
    low: float = 0.0
    high: float = 1.0
    is_image: bool = False

    def __post_init__(self) -> None:
        """Refuse what no network can stand for.

        Raises:
            TaskError: there are no coordinates or no samples, numbers are not finite, or all are equal; or it is said
                to be an image, and has another shape.
        """
        if self.values.dim() < 2 or not self.values.numel():
            raise TaskError(
                f"The signal has the shape {tuple(self.values.shape)}; a signal is size × … × channels, with one "
                "sample at least. Give a signal of one channel a last dimension of 1."
            )
        if self.is_image and (self.values.dim() != 3 or self.values.shape[-1] not in _CHANNELS):
            raise TaskError(
                f"The signal has the shape {tuple(self.values.shape)}; an image is height × width × 1 or 3. Is it an "
                "image? Otherwise leave is_image out."
            )
        if not bool(self.values.isfinite().all()):
            raise TaskError("The signal has NaN or infinity in it; only finite values can be learned.")
        if self.variance == 0:
            raise TaskError(
                "All values of the signal are equal, so that there is nothing to learn. Is it the right one?"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many samples it has in each dimension, without the channels."""
        return tuple(self.values.shape[:-1])

    @property
    def samples(self) -> int:
        """Pixels of an image, times of a sound: a sample has all channels."""
        return math.prod(self.sizes)

    @property
    def variance(self) -> float:
        """Mean squared distance from the mean of each channel."""
        flat = self.values.double().flatten(0, -2)
        return float((flat - flat.mean(0)).square().mean())


@final
@dataclass(frozen=True, eq=False)
class Signals:
    """What a task is of: one signal, or several of one shape, whose samples all count alike.

    Attributes:
        each: the signals.
        targets: n × channels, or of several n × signals × channels.
        low, high: the range of all of them.
    """

    each: tuple[Signal, ...]
    targets: Tensor
    low: float
    high: float

    @classmethod
    def of(cls, source: Source | Sequence[Source]) -> Self:
        """Read one signal, or the signals of a list or a tuple.

        Raises:
            TaskError: a signal cannot be learned, there are none, or their shapes differ.
        """
        if not isinstance(source, list | tuple):
            one = _as_signal(source)
            return cls((one,), one.values.flatten(0, -2), one.low, one.high)
        each = tuple(map(_as_signal, source))
        shapes = [tuple(one.values.shape) for one in each]
        if len({*shapes}) != 1:
            found = f"the shapes {', '.join(map(str, dict.fromkeys(shapes)))}" if shapes else "no signal"
            raise TaskError(
                f"The task has {found}; several signals have one shape, and there is at least one. Crop or scale them."
            )
        targets = torch.stack([one.values.flatten(0, -2) for one in each], dim=1)
        return cls(each, targets, min(one.low for one in each), max(one.high for one in each))

    @property
    def samples(self) -> int:
        """Of all of them."""
        return sum(each.samples for each in self.each)

    @property
    def variance(self) -> float:
        """Mean squared distance from the mean of each channel of each signal."""
        return sum(each.variance for each in self.each) / len(self.each)


def _as_signal(source: Any) -> Signal:
    return source if isinstance(source, Signal) else read_signal(source)


def read_signal(source: str | Path | NDArray[Any] | Tensor) -> Signal:
    """The signal in an image file, a WAV file or an array.

    An image (whatever Pillow reads) is height × width × channels, 0 to 1: gray ones have one channel, all others three.
    One of more than 8 bits a number is taken as an array of one channel. A sound is times × channels, −1 to 1. An array
    is size × … × channels: of 8-bit numbers 0 to 1, and an image if it is height × width, or that × 1 or 3; otherwise
    as it is, in the range of its own values.

    Raises:
        TaskError: the file cannot be read, or has no signal that can be learned.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        return _sound(path) if path.suffix.lower() == ".wav" else _image(path)
    try:
        array = torch.as_tensor(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            f"The signal is no array of numbers ({error}). Give an image, a WAV file or an array."
        ) from error
    return _of_bytes(array) if array.dtype == torch.uint8 else _of_numbers(array)


def _of_numbers(array: Tensor) -> Signal:
    if array.is_complex():
        raise TaskError("The signal has complex numbers. Give real and imaginary parts as two channels.")
    values = array.detach().float()
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 1.0)
    return Signal(values, low, high)


def psnr(signal: Signal, values: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels: 10·log10((high − low)² / mean squared error).

    Symbols: `values`, size × … × channels as the signal's, are clipped to its range first, as a picture would be. Equal
    values give infinity. O(n).

    >>> round(psnr(Signal(torch.tensor([[0.0], [1.0]])), torch.tensor([[0.1], [0.9]])), 3)
    20.0
    """
    error = (values.double().clamp(signal.low, signal.high) - signal.values.double()).square().mean()
    return decibels(signal, float(error))


def decibels(signal: Signal | Signals, error: float) -> float:
    """The peak signal-to-noise ratio that goes with a mean squared error; infinity for none.

    >>> decibels(Signal(torch.tensor([[0.0], [1.0]])), 0.01)
    20.0
    """
    return 10 * math.log10((signal.high - signal.low) ** 2 / error) if error else math.inf


def _image(path: Path) -> Signal:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                return _of_numbers(torch.from_numpy(np.array(image).astype(np.float32))[..., None])
            kept = image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in ("1", "LA") else "RGB")
            return _of_bytes(torch.from_numpy(np.array(kept)))
    except (OSError, UnidentifiedImageError) as error:
        raise TaskError(
            f"{path} cannot be read as an image: {error}. Give an image, a WAV file or an array."
        ) from error


def _of_bytes(array: Tensor) -> Signal:
    shaped = array[..., None] if array.dim() == 2 else array
    return Signal(shaped.float() / 255, is_image=shaped.dim() == 3 and shaped.shape[-1] in _CHANNELS)


def _sound(path: Path) -> Signal:
    try:
        with wave.open(str(path), "rb") as file:
            width, channels = file.getsampwidth(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise TaskError(f"{path} cannot be read as a WAV file: {error}. Give one of whole numbers (PCM).") from error
    if width not in _WHOLE:
        raise TaskError(f"{path} has samples of {8 * width} bits; WAV files of 8, 16 or 32 bits are read. Convert it.")
    numbers = np.frombuffer(data, _WHOLE[width]).reshape(-1, channels).astype(np.float64)
    scaled = numbers / 128 - 1 if width == 1 else numbers / 2.0 ** (8 * width - 1)
    return Signal(torch.from_numpy(scaled).float(), -1.0, 1.0)
