"""Test views of studies/scene.toml as they are, and as packed networks show them, as a PNG.

python docs/pictures/draw_scene.py docs/pictures/scene.png one.rsz other.rsz
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import scene

import rank_search as rs

SHOWN = range(0, 8, 2)


def main(target: str, *files: str) -> None:
    """A row for what is there, and one for each file, with its bytes and its decibels over all test views."""
    test = scene.views(8, 2.0)
    rows = {"drawn by the study": test.images}
    for file in files:
        found = rs.representations.render_views(rs.load(file), test.poses, test.focal, test.sizes)
        decibels = rs.representations.psnr(rs.representations.Signal(test.images), found)
        rows[f"{Path(file).stat().st_size:,} bytes\n{decibels:.1f} dB"] = found.clamp(0, 1)
    figure, panels = plt.subplots(len(rows), len(SHOWN), figsize=(7.6, 1.75 * len(rows)), layout="constrained")
    for own, (name, images) in zip(panels, rows.items(), strict=True):
        for axes, view in zip(own, SHOWN, strict=True):
            axes.imshow(images[view].numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        own[0].set_ylabel(name, fontsize=9)
    figure.savefig(target, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
