"""Size against error of networks packed without training, as an SVG, from `benchmarks/post_training.py --test --out`.

python docs/pictures/draw_packed.py docs/pictures/packed.svg ResNet-20=rows.json ResNet-32=others.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "NNCodec": {"color": "#d1495b", "marker": "v"},
    "CERWU": {"color": "#d98e04", "marker": "s"},
    "pack-model": {"color": "#0b6fb8", "linewidth": 2.4, "marker": "o", "zorder": 5},
}


def main(target: str, *networks: str) -> None:
    """A panel for each network: a line for each codec, the dense network's error across."""
    mpl.rcParams.update(
        {"svg.hashsalt": "packed", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, panels = plt.subplots(1, len(networks), figsize=(4.4 * len(networks), 3.8), layout="constrained")
    for axes, (name, _, file) in zip(panels, (each.partition("=") for each in networks), strict=True):
        draw(axes, name, json.loads(Path(file).read_text(encoding="utf-8")))
    panels[0].set_ylabel("test error, %")
    panels[0].legend(frameon=False, fontsize=9)
    figure.savefig(target, metadata={"Date": None})


def draw(axes: Axes, network: str, rows: list[dict[str, Any]]) -> None:
    """Of each codec the rows on its front by selection errors: test errors chose nothing."""
    for codec, style in STYLES.items():
        front = [row for row in rows if row["codec"] == codec and on_front(row, rows)]
        own = sorted((row["bytes"] / 1e3, 100 * row["test_error"]) for row in front)
        axes.plot(*zip(*own, strict=True), label=codec, **{"markersize": 5, **style})
    axes.axhline(100 * rows[0]["test_error"], color="0.6", linestyle=":", label=f"32 bits, {rows[0]['bytes']:,} bytes")
    axes.set_title(network, fontsize=10)
    axes.set_ylim(100 * rows[0]["test_error"] - 1, 100 * rows[0]["test_error"] + 7)
    axes.set_xlabel("bytes of the network, kB")
    axes.grid(alpha=0.25)


def on_front(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> bool:
    return not any(
        other["codec"] == row["codec"] and other["bytes"] < row["bytes"] and other["error"] <= row["error"]
        for other in rows
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
