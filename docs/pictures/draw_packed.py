"""Size against error of a network packed without training, as an SVG, from `benchmarks/post_training.py --test --out`.

python docs/pictures/draw_packed.py docs/pictures/packed.svg rows.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt

STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "NNCodec, as it is": {"color": "0.45", "marker": "s"},
    "NNCodec, canonical batch norms": {"color": "#d1495b", "marker": "v"},
    "NNCodec, folded batch norms": {"color": "#d98e04", "marker": "^"},
    "pack-model": {"color": "#0b6fb8", "linewidth": 2.4, "marker": "o", "zorder": 5},
}
_FORMS: Final = {"as it is": "as it is", "canonical": "canonical batch norms", "folded": "folded batch norms"}


def main(target: str, rows_file: str) -> None:
    """One line for each codec and form of the network; the dense model's error across."""
    mpl.rcParams.update(
        {"svg.hashsalt": "packed", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    rows = json.loads(Path(rows_file).read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for name, style in STYLES.items():
        own = sorted((row["bytes"] / 1e3, 100 * row["test_error"]) for row in rows if _name(row) == name)
        axes.plot(*zip(*own, strict=True), label=name, **{"markersize": 5, **style})
    axes.axhline(100 * rows[0]["test_error"], color="0.6", linestyle=":", label="32 bits (1,079 kB)")
    axes.set_ylim(8, 16)
    axes.set_xlabel("bytes of the network, kB")
    axes.set_ylabel("test error, %")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(target, metadata={"Date": None})


def _name(row: Mapping[str, Any]) -> str:
    if row["codec"] != "NNCodec":
        return str(row["codec"])
    return f"NNCodec, {_FORMS[row['setting'].partition(',')[0]]}"


if __name__ == "__main__":
    main(*sys.argv[1:])
