"""`rank-search synthesize`: a picture of images that nobody took."""

from __future__ import annotations

from pathlib import Path

from matplotlib.image import imread

import rank_search as rs
from rank_search.sources import cached
from rank_search.study import load_task
from tests.story.small import Command, write_study


def test_a_study_s_model_gives_a_sheet_and_the_images_are_kept(command: Command, tmp_path: Path) -> None:
    small = write_study(tmp_path / "study", data={"steps": 20})
    sheet = tmp_path / "samples.png"
    assert f"wrote {sheet}" in command.fine("synthesize", small.file, "-o", sheet).out
    assert imread(sheet).shape[:2] == (8 * 66, 8 * 66)  # the first 64 of a batch
    study = rs.load_study(small.file)
    task = load_task(study)
    told: list[int] = []
    made = cached(
        task.model(),
        task.example(),
        settings=study.data.synthesis,
        seed=study.study.seed,
        folder=small.folder / "spectra",
        progress=lambda done, total: told.append(done),
    )
    assert told == []
    assert [images.shape for images in made] == [(128, 1, 8, 8)] * 3  # two to look at, one to measure on
    assert "already exists" in command.refused("synthesize", small.file, "-o", sheet)
    command.fine("synthesize", small.file, "-o", sheet, "--overwrite")


def test_a_model_without_batch_norms_is_refused(command: Command, tmp_path: Path) -> None:
    small = write_study(tmp_path / "study")
    (small.folder / "plain.py").write_text(
        "from torch import nn\n"
        "import stripes\n"
        "def task():\n"
        "    made = stripes.task()\n"
        "    made.network.norm = nn.Identity()\n"
        "    return made\n",
        encoding="utf-8",
    )
    plain = write_study(small.folder, task={"factory": "plain.py:task"})
    sheet = tmp_path / "samples.png"
    assert "no batch norms with running statistics" in command.refused("synthesize", plain.file, "-o", sheet)
    assert not sheet.exists()
