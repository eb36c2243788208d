"""What fronts are worth after each number of trials, as an SVG, from what `benchmarks/front_per_trial.py --out` wrote.

python docs/pictures/draw_worth.py docs/pictures/worth.svg ResNet-20=a.json,b.json Digits=c.json
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

Worth = Mapping[str, Mapping[str, list[float]]]

STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "auto": {"color": "#0b6fb8", "linewidth": 2.4, "marker": "o", "zorder": 5},
    "allocation + tpe": {"color": "#3a9d6a", "marker": "s"},
    "ladder + tpe": {"color": "#d98e04", "marker": "^"},
    "tpe": {"color": "#d1495b", "marker": "v"},
    "nsga2": {"color": "#8d5a97", "marker": "x"},
    "random": {"color": "0.45", "marker": "+"},
    "sweep: uniform": {"color": "0.6", "linestyle": ":", "marker": "."},
    "sweep: relative tail": {"color": "0.3", "linestyle": ":", "marker": "."},
}


def main(target: str, *panels: str) -> None:
    """One panel for each network."""
    mpl.rcParams.update(
        {"svg.hashsalt": "worth", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.7), layout="constrained", squeeze=False)
    for place, panel in zip(axes[0], panels, strict=True):
        title, _, files = panel.partition("=")
        draw(place, title, merged(files.split(",")))
    axes[0][0].set_ylabel("hypervolume of error and MACs")
    known = {label: line for each in axes[0] for line, label in zip(*each.get_legend_handles_labels(), strict=True)}
    shown = [name for name in STYLES if name in known]
    figure.legend([known[name] for name in shown], shown, frameon=False, loc="outside right center")
    figure.savefig(target, metadata={"Date": None})


def merged(files: list[str]) -> Worth:
    """The longest record of each method."""
    found: dict[str, Mapping[str, list[float]]] = {}
    for file in files:
        for name, worth in json.loads(Path(file).read_text(encoding="utf-8")).items():
            found[name] = {**worth, **found.get(name, {})}
    return found


def draw(axes: Axes, title: str, worth: Worth) -> None:
    """Medians over the rng seeds; where there are several, their range as a band."""
    for name, style in STYLES.items():
        known = sorted((int(count), values) for count, values in worth.get(name, {}).items())
        if not known:
            continue
        counts = [count for count, _ in known]
        axes.plot(counts, [statistics.median(values) for _, values in known], label=name, markersize=5, **style)
        low, high = ([edge(values) for _, values in known] for edge in (min, max))
        axes.fill_between(counts, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([10, 25, 50, 100, 200, 400, 1000]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("trials")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    main(*sys.argv[1:])
