"""Coded size against error, as an SVG, from what `benchmarks/bits.py --report` wrote.

python docs/pictures/draw_bits.py docs/pictures/bits.svg a.json b.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "dense": {"color": "0.3", "marker": "*", "markersize": 9},
    "8 bits + deflate": {"color": "0.3", "marker": "s"},
    "Deep Compression": {"color": "#d1495b", "marker": "v"},
    "rank": {"color": "#d98e04", "marker": "^"},
    "entropy": {"color": "#3a9d6a", "marker": "s"},
    "rank + entropy, not orthogonal": {"color": "#8d5a97", "marker": "x"},
    "rank + entropy": {"color": "#0b6fb8", "linewidth": 2.4, "marker": "o", "zorder": 5},
}


def main(target: str, *reports: str) -> None:
    """One panel for each network."""
    mpl.rcParams.update({"svg.hashsalt": "bits", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(
        1, len(reports), figsize=(max(6.4, 4.6 * len(reports)), 4.0), layout="constrained", squeeze=False
    )
    for place, report in zip(axes[0], reports, strict=True):
        found = json.loads(Path(report).read_text(encoding="utf-8"))
        draw(place, found["rows"])
        place.set_title(found["network"], fontsize=10)
    axes[0][0].set_ylabel("test error, %")
    known = {label: line for each in axes[0] for line, label in zip(*each.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known.keys(), frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(target, metadata={"Date": None})


def draw(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows of each method, joined in the order of their sizes."""
    for method, style in STYLES.items():
        own = sorted((row["bytes"] / 1e3, 100 * row["test_error"]) for row in rows if row["method"] == method)
        if own:
            axes.plot(*zip(*own, strict=True), label=method, **{"markersize": 5, **style})
    axes.set_xscale("log")
    axes.set_xlabel("whole file, kB")
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    main(*sys.argv[1:])
