"""Pictures as SVG or PNG, by matplotlib; no browser is needed."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from rank_search.basics import PALETTE, is_logarithmic, replace_whole
from rank_search.errors import ExportError
from rank_search.figures.comparison import Comparison
from rank_search.figures.drawn_panels import DrawnPanel

BLUE: Final = PALETTE[0]
GREY: Final = "0.75"
MARKERS: Final = "os^Dv<>"
FORMATS: Final = (".svg", ".png", ".pdf")


def draw_front(panels: Sequence[DrawnPanel], target: Path) -> None:
    """One panel for each pair: front, dominated trials faint, the dense model, and the knee with its number.

    Raises:
        ExportError: the file's name ends otherwise than .svg, .png or .pdf, or it cannot be written.
    """
    figure, every = _figure(len(panels), target)
    for axes, panel in zip(every, panels, strict=True):
        _scatter(axes, panel.dominated, color=GREY, s=12, label="dominated")
        _steps(axes, panel, BLUE, "o", f"front ({len(panel.front)})")
        _knee(axes, panel)
        _dense(axes, panel)
        _name_axes(axes, [panel])
    every[0].legend(frameon=False, fontsize="small")
    if not any(panel.front for panel in panels):
        figure.suptitle(f"{_plain(panels[0].study)}: no trial is complete, so there is no front", fontsize="medium")
    _save(figure, target)


def draw_comparison(comparisons: Sequence[Comparison], target: Path) -> None:
    """The fronts of all on shared axes, and their hypervolumes over trials, with the extremes of several studies.

    Raises:
        ExportError: as for `draw_front`.
    """
    pairs = len(comparisons[0].panels)
    figure, every = _figure(pairs + 1, target)
    for place, axes in enumerate(every[:-1]):
        for color, marker, each in zip(cycle(PALETTE), cycle(MARKERS), comparisons, strict=False):
            _steps(axes, each.panels[place], color, marker, each.label)
        _dense(axes, comparisons[0].panels[place])
        _name_axes(axes, [each.panels[place] for each in comparisons])
    for color, each in zip(cycle(PALETTE), comparisons, strict=False):
        _progress(every[-1], each, color)
    every[-1].set_xlabel("trials")
    every[-1].set_ylabel("hypervolume")
    every[-1].legend(frameon=False, fontsize="small", loc="lower right")
    _save(figure, target)


def _figure(count: int, target: Path) -> tuple[Any, list[Any]]:
    if target.suffix.lower() not in FORMATS:
        raise ExportError(f"{target.name!r} does not end in {', '.join(FORMATS)}, as a picture does.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * count, 3.6), layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def _save(figure: Any, target: Path) -> None:
    import matplotlib as mpl

    form, drawn = target.suffix.lower().removeprefix("."), BytesIO()
    with mpl.rc_context({"svg.hashsalt": "rank-search"}):
        figure.savefig(drawn, format=form, dpi=160, metadata={"Date": None} if form == "svg" else None)
    try:
        replace_whole(target, drawn.getvalue())
    except OSError as error:
        raise ExportError(f"{target} could not be written: {error.strerror or error}.") from error


def _scatter(axes: Any, pairs: Sequence[tuple[float, float]], **look: Any) -> None:
    if pairs:
        axes.scatter(*zip(*pairs, strict=True), **look)


def _steps(axes: Any, panel: DrawnPanel, color: str, marker: str, label: str) -> None:
    if panel.front:
        across, upwards = zip(*panel.front, strict=True)
        axes.plot(across, upwards, color=color, marker=marker, markersize=4, linewidth=1.2, label=_plain(label))


def _knee(axes: Any, panel: DrawnPanel) -> None:
    if panel.knee is None:
        return
    number, at = panel.knee
    _scatter(axes, [at], s=90, facecolors="none", edgecolors=BLUE, linewidths=1.5)
    axes.annotate(f"knee: trial {number}", at, (8, 8), textcoords="offset points", fontsize="small")


def _dense(axes: Any, panel: DrawnPanel) -> None:
    if panel.dense is not None:
        _scatter(axes, [panel.dense], marker="D", s=36, color="black", zorder=4, label="dense")


def _name_axes(axes: Any, panels: Sequence[DrawnPanel]) -> None:
    axes.set_xlabel(_plain(panels[0].across))
    axes.set_ylabel(_plain(panels[0].upwards))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for place, scale in enumerate((axes.set_xscale, axes.set_yscale)):
        values = [pair[place] for panel in panels for pair in (*panel.front, *panel.dominated)]
        if is_logarithmic(values):
            scale("log")


def _progress(axes: Any, each: Comparison, color: str) -> None:
    counts = sorted({count for progress in each.progress for count in progress.trials if count <= each.trials})
    found = [each.after(count) for count in counts]
    axes.plot(counts, [middle for middle, _, _ in found], color=color, linewidth=1.4, label=_plain(each.label))
    if len(each.progress) > 1:
        lows, highs = [low for _, low, _ in found], [high for _, _, high in found]
        axes.fill_between(counts, lows, highs, color=color, alpha=0.18, linewidth=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(text: str) -> str:
    """A name as it is: no mathematics between dollar signs, and no label that hides itself by its underscore."""
    return "\u200b" + text.replace("$", r"\$") if text.startswith("_") else text.replace("$", r"\$")
