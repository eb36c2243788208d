"""The contact sheet, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from rank_search.errors import SourceError
from rank_search.sources import contact_sheet


def test_each_image_goes_from_its_least_number_to_its_largest(tmp_path: Path) -> None:
    images = torch.zeros(3, 3, 64, 64)
    images[0, :, :32] = 5.0  # white above, black below
    images[1, 0], images[1, 1] = 7.0, -7.0  # red all over, half of blue
    images[2] = 3.0  # without any difference
    contact_sheet(images, tmp_path / "sheet.png")
    picture = torch.from_numpy(imread(tmp_path / "sheet.png"))[..., :3]
    assert picture.shape == (2 * 66, 2 * 66, 3)
    assert picture[1, 1].tolist() == [1, 1, 1]
    assert picture[64, 1].tolist() == [0, 0, 0]
    assert picture[30, 66 + 30].tolist() == pytest.approx([1, 0, 0.5], abs=0.01)
    assert picture[66 + 30, 30].tolist() == [0, 0, 0]
    assert picture[66 + 30, 66 + 30].tolist() == [1, 1, 1]  # nothing is there


@pytest.mark.parametrize("shape", [(2, 9), (2, 3, 9), (2, 1, 8, 8), (2, 5, 8, 8), (2, 1, 4, 8, 8)])
def test_signals_and_volumes_are_drawn_too(tmp_path: Path, shape: tuple[int, ...]) -> None:
    contact_sheet([torch.randn(shape, generator=torch.Generator().manual_seed(0))], tmp_path / "sheet.png")
    assert max(imread(tmp_path / "sheet.png").shape[:2]) >= 64


def test_batches_in_any_form_and_no_more_than_asked_for(tmp_path: Path) -> None:
    batches = [{"image": torch.rand(3, 1, 64, 64)}, {"image": torch.rand(3, 1, 64, 64)}]
    contact_sheet(batches, tmp_path / "sheet.png", most=4)
    assert imread(tmp_path / "sheet.png").shape[:2] == (2 * 66, 2 * 66)


def test_without_images_there_is_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no image to draw"):
        contact_sheet([], tmp_path / "sheet.png")
