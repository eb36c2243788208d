"""The front of a study as an SVG: error against MACs and against bits, dominated trials faint.

python docs/pictures/draw.py fashion.sqlite fashion docs/pictures/fashion.svg
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

import rank_search as rs

COSTS = {"macs": "MACs, as a share of the dense model's", "bits": "bits, as a share of the 32-bit dense model's"}


def main(store: str, name: str, target: str) -> None:
    """Draw both panels."""
    mpl.rcParams.update({"svg.hashsalt": name, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    with rs.Store.open(store) as opened:
        study = opened.study(name)
        trials, dense = opened.trials(study), study.dense
        fronts = {cost: opened.front(study, objectives=["error", cost], sort=cost) for cost in COSTS}
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    for axes, (cost, label) in zip(panels, COSTS.items(), strict=True):
        draw(axes, cost, trials, fronts[cost], dense)
        axes.set_xlabel(label)
    panels[0].set_ylabel("selection error")
    panels[0].legend(frameon=False, loc="upper right")
    figure.savefig(target, metadata={"Date": None})


def draw(
    axes: Axes, cost: str, trials: Sequence[rs.TrialRow], front: Sequence[rs.TrialRow], dense: Mapping[str, float]
) -> None:
    """One panel: the share of the dense cost across, the error upwards."""
    complete = [row.measurements for row in trials if row.state == "complete"]
    axes.scatter([m[cost] / dense[cost] for m in complete], [m["error"] for m in complete], s=14, color="0.78")
    xs = [row.measurements[cost] / dense[cost] for row in front]
    ys = [row.measurements["error"] for row in front]
    axes.step(xs, ys, where="post", color="#0b6fb8", linewidth=1.2)
    axes.scatter(xs, ys, s=26, color="#0b6fb8", zorder=3, label="front of error and this cost")
    axes.scatter([1], [dense["error"]], marker="D", s=40, color="#d1495b", zorder=4, label="dense model")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, min(0.4, max(m["error"] for m in complete)) * 1.05)
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    main(*sys.argv[1:4])
