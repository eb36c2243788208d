"""Pictures of fronts: for papers and READMEs as SVG or PNG, and in the terminal. Studies side by side."""

from rank_search.figures.comparison import Comparison, compare_studies
from rank_search.figures.convergence import Progress, progress_of
from rank_search.figures.drawn import draw_comparison, draw_front
from rank_search.figures.panels import Panel, panels_of
from rank_search.figures.terminal import in_terminal

__all__ = [
    "Comparison",
    "Panel",
    "Progress",
    "compare_studies",
    "draw_comparison",
    "draw_front",
    "in_terminal",
    "panels_of",
    "progress_of",
]
