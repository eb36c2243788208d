"""Pictures of fronts: for papers and READMEs as SVG or PNG, and in the terminal. Studies side by side."""

from __future__ import annotations

from rank_search.figures.comparison import compare_studies, rows_of
from rank_search.figures.drawn import draw_comparison, draw_front
from rank_search.figures.drawn_panels import drawn_panels
from rank_search.figures.terminal import in_terminal

__all__ = [
    "compare_studies",
    "draw_comparison",
    "draw_front",
    "drawn_panels",
    "in_terminal",
    "rows_of",
]
