"""Signals are read from images, sounds and arrays, and decibels are measured against their range."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rank_search.errors import TaskError
from rank_search.representations import Signal, codec_curves, psnr, read_signal


def pixels(channels: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (6, 5, channels), dtype=np.uint8).squeeze()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_height_width_channels_from_0_to_1(tmp_path: Path, channels: int) -> None:
    Image.fromarray(pixels(channels)).save(tmp_path / "a.png")
    found = read_signal(tmp_path / "a.png")
    assert found.values.shape == (6, 5, channels)
    assert (found.sizes, found.samples, found.is_image) == ((6, 5), 30, True)
    assert torch.equal(found.values, torch.from_numpy(pixels(channels)).reshape(6, 5, channels) / 255)
    assert torch.equal(read_signal(pixels(channels)).values, found.values)


def test_a_picture_with_transparency_is_read_without_it(tmp_path: Path) -> None:
    Image.fromarray(pixels(3)).convert("RGBA").save(tmp_path / "a.png")
    assert read_signal(tmp_path / "a.png").values.shape == (6, 5, 3)


@pytest.mark.parametrize(("kind", "scale"), [("u1", 128), ("<i2", 2**15), ("<i4", 2**31)])
def test_a_sound_is_times_channels_from_minus_1_to_1(tmp_path: Path, kind: str, scale: int) -> None:
    exact = np.linspace(-0.9, 0.9, 12).reshape(6, 2)
    numbers = (exact * scale + (scale if kind == "u1" else 0)).astype(kind)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(numbers.dtype.itemsize)
        file.setframerate(8000)
        file.writeframes(numbers.tobytes())
    found = read_signal(tmp_path / "a.wav")
    assert (found.low, found.high, found.is_image) == (-1.0, 1.0, False)
    assert torch.allclose(found.values, torch.from_numpy(exact).float(), atol=1.01 / min(scale, 2**20))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (torch.zeros(4, 1), "equal"),
        (torch.tensor([[0.0], [math.nan]]), "NaN"),
        (torch.arange(4.0), "size × … × channels"),
        (torch.zeros(0, 1), "one sample at least"),
    ],
)
def test_what_cannot_be_learned_is_refused(values: torch.Tensor, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        read_signal(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [(None, "no array of numbers"), (np.array(["a"]), "no array of numbers"), (torch.tensor([[1j], [2.0]]), "complex")],
)
def test_what_is_no_array_of_real_numbers_is_refused(values: object, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        read_signal(values)  # type: ignore[arg-type]


def test_an_image_of_16_bits_keeps_them(tmp_path: Path) -> None:
    numbers = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    Image.fromarray(numbers).save(tmp_path / "a.png")
    found = read_signal(tmp_path / "a.png")
    assert torch.equal(found.values, torch.from_numpy(numbers.astype(np.float32))[..., None])
    assert (found.low, found.high, found.is_image) == (0.0, 58_000.0, False)


@pytest.mark.parametrize("shape", [(6, 5, 2), (6, 5, 4), (6, 5, 2, 3)])
def test_bytes_of_other_channels_are_no_image_and_have_no_codecs(shape: tuple[int, ...]) -> None:
    found = read_signal(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert (found.values.shape, found.is_image) == (shape, False)
    assert codec_curves(found) == {}
    with pytest.raises(TaskError, match="height × width × 1 or 3"):
        Signal(found.values, is_image=True)


@pytest.mark.parametrize("name", ["none.png", "none.wav", "text.png", "text.wav"])
def test_a_file_that_is_no_signal_is_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("hello")
    with pytest.raises(TaskError, match="cannot be read as"):
        read_signal(tmp_path / name)


def test_decibels_are_measured_against_the_range_after_clipping() -> None:
    signal = Signal(torch.tensor([[-1.0], [1.0]]), -1.0, 1.0)
    assert psnr(signal, torch.tensor([[-0.8], [0.8]])) == pytest.approx(20.0)
    assert psnr(signal, torch.tensor([[-7.0], [9.0]])) == math.inf


def test_codecs_are_written_and_read_again() -> None:
    across = torch.linspace(0, 1, 48)
    picture = (torch.sin(9 * across)[:, None] * torch.cos(7 * across) + 1) / 2
    signal = Signal(torch.stack([picture, picture.T, picture**2], -1), is_image=True)
    curves = codec_curves(signal, (5, 30, 90))
    assert {"JPEG", "WebP"} <= curves.keys()
    for curve in curves.values():
        assert [point["psnr"] for point in curve] == sorted(point["psnr"] for point in curve)
        for point in curve:
            assert 20 < point["psnr"] < 60
            assert point["bits_per_sample"] == point["bits"] / 48**2
            assert point["bits"] > 8 * 100


def test_a_file_without_any_error_is_no_point_of_a_curve() -> None:
    halves = np.zeros((16, 16), np.uint8)
    halves[:, 8:] = 255  # codecs keep this as it is
    curves = codec_curves(read_signal(halves))
    points = [point for curve in curves.values() for point in curve]
    assert points
    assert all(curves.values())
    assert all(math.isfinite(point["psnr"]) for point in points)


def test_a_codec_for_smaller_images_is_left_out() -> None:
    wide = np.random.default_rng(0).integers(0, 256, (1, 17_000), dtype=np.uint8)
    curves = codec_curves(read_signal(wide), (50,))
    assert "JPEG" in curves
    assert "WebP" not in curves
