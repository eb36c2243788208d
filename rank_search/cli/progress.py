"""The live display of `rank-search run`: trials done, current front, hypervolume, time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rank_search.basics import clock, number, ratio
from rank_search.cli.aside import quiet
from rank_search.observe import SearchProgress

_MOST_MEMBERS: Final = 12
_SECONDS_BETWEEN_LINES: Final = 5.0


class ProgressDisplay:
    """A live table on a terminal; elsewhere a line now and then, and one for the end."""

    def __init__(self) -> None:
        self._console = Console(markup=False, emoji=False, stderr=True)
        self._silent = quiet()
        is_live = self._console.is_terminal and not self._silent
        self._live = Live(console=self._console, refresh_per_second=4) if is_live else None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: SearchProgress) -> None:
        """Show where the search stands."""
        if self._silent:
            return
        if self._live:
            self._live.update(_picture(progress))
        elif (
            progress.finished >= progress.target and not progress.untested
        ) or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            sys.stderr.write(_line(progress) + "\n")


def _line(progress: SearchProgress) -> str:
    states = ", ".join(f"{count} {state}" for state, count in progress.states.items() if count)
    parts = [
        f"{progress.finished}/{progress.target} trials ({states or 'none yet'})",
        f"front {len(progress.front)}",
        f"hypervolume {progress.hypervolume:.4f}",
        *_crowd(progress),
        *([] if progress.rate is None else [f"{number(progress.rate)} a minute"]),
        clock(progress.seconds),
        f"left {clock(progress.seconds_left)}",
        *([f"{progress.untested} of the front to be tested"] if progress.untested else []),
    ]
    return " · ".join(parts)


def _crowd(progress: SearchProgress) -> list[str]:
    """Who is at work, unless it is this process alone."""
    if progress.workers == 1 and not progress.elsewhere:
        return []
    workers = "1 worker" if progress.workers == 1 else f"{progress.workers or 'no'} workers"
    elsewhere = f", {progress.elsewhere} elsewhere" if progress.elsewhere else ""
    return [workers, f"{progress.in_flight} in flight{elsewhere}"]


def _picture(progress: SearchProgress) -> Group:
    bar = ProgressBar(total=progress.target, completed=min(progress.finished, progress.target), width=60)
    padded = Padding(bar, (0, 0, 1, 0))
    return Group(Text(f"{progress.study.name}: {_line(progress)}"), padded, _front(progress))


def _front(progress: SearchProgress) -> Table:
    names = [objective.name for objective in progress.study.objectives]
    shown = progress.front[:_MOST_MEMBERS]
    hidden = len(progress.front) - len(shown)
    caption = f"and {hidden} more" if hidden else None
    table = Table(title="current front", title_justify="left", caption=caption, caption_justify="left")
    for column in ("trial", *names, *(f"dense / {name}" for name in names)):
        table.add_column(column, justify="right")
    for row in shown:
        values = [row.measurements[name] for name in names]
        ratios = [ratio(progress.study.dense.get(name), value) for name, value in zip(names, values, strict=True)]
        table.add_row(str(row.number), *map(number, values), *ratios)
    return table
