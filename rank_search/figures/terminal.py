"""A front drawn in the terminal, by plotext."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rank_search.basics import is_logarithmic, short_number
from rank_search.figures.drawn_panels import DrawnPanel

_TICKS: Final = 5


def in_terminal(panel: DrawnPanel, width: int, height: int, color: bool) -> str:
    """The front, the other trials and the dense model as characters, with axes.

    Args:
        width, height: in characters.
        color: whether the text may hold color codes.
    """
    import plotext as plt

    plt.clear_figure()
    plt.plot_size(width, height)
    plt.theme("clear")
    kinds = (
        (panel.dominated, "·", "gray", "dominated"),
        (panel.front, "●", "blue", "front"),
        (() if panel.dense is None else (panel.dense,), "◆", "red", "dense"),
    )
    for pairs, marker, shade, label in kinds:
        if pairs:
            across, upwards = zip(*pairs, strict=True)
            plt.scatter(across, upwards, marker=marker, color=shade, label=label)
    drawn = [pair for pairs, *_ in kinds for pair in pairs]
    for values, scale, ticks in (
        ([across for across, _ in drawn], plt.xscale, plt.xticks),
        ([upwards for _, upwards in drawn], plt.yscale, plt.yticks),
    ):
        logarithmic = is_logarithmic(values)
        scale("log" if logarithmic else "linear")
        ticks(*_ticks(values, logarithmic))
    plt.xlabel(panel.across)
    plt.ylabel(panel.upwards)
    text = str(plt.build())
    return text if color else str(plt.uncolorize(text))


def _ticks(values: Sequence[float], logarithmic: bool) -> tuple[list[float], list[str]]:
    """Some places from the least value to the largest, and what to write there."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    shares = [step / (_TICKS - 1) for step in range(_TICKS)]
    places = sorted({low * (high / low) ** share if logarithmic else low + (high - low) * share for share in shares})
    return places, [short_number(float(f"{place:.3g}")) for place in places]
