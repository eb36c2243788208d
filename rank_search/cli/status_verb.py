"""The verb that looks at a running study: `status`. It imports neither torch nor optuna."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from rank_search.basics import clock
from rank_search.cli.output import OutputFormat, Row, print_rows, table_of
from rank_search.cli.parameters import FormatOption, NameArgument, StoreArgument
from rank_search.errors import StoreAwayError

if TYPE_CHECKING:
    from rank_search.observe import DriverStatus, Status
    from rank_search.store import Claim, Store

_REFRESH: Final = timedelta(seconds=2)
_MOST_SHOWN: Final = 20


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(status)


def status(
    store: StoreArgument,
    name: NameArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Show it every 2 s, until complete or Ctrl-C.")] = False,
    minutes: Annotated[
        float, typer.Option(min=0.1, max=1e6, help="Rates are over this many minutes.", metavar="N")
    ] = 10.0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Show how a study is going: trials by state, time left, what is in flight where, drivers, rate of each worker.

    A driver is silent if nothing was heard of it for 90 s; another one takes its trials over.

    Example: rank-search status digits.sqlite digits --watch
    """
    from rank_search.observe import status_of
    from rank_search.store import Store

    period = timedelta(minutes=minutes)
    if watch and format is not OutputFormat.TABLE:
        raise typer.BadParameter("--watch and --format cannot be combined: --watch shows tables. Leave --format out.")
    if watch:
        with suppress(KeyboardInterrupt):
            _watch(_Watched(store, name, period))
        return
    with Store.open(store) as opened:
        found = status_of(opened, name, period)
    if format is OutputFormat.TABLE:
        for title, rows in _tables(found):
            print_rows(rows, format, title, empty="none")
    else:
        print_rows([_summary(found), *(row for _, rows in _parts(found) for row in rows)], format)


# ---- watching ----------------------------------------------------------------------------------------------


class _Watched:
    """A study that is looked at again and again; its store may be away for a while."""

    def __init__(self, store: str, name: str, period: timedelta) -> None:
        self._where, self._name, self._period = store, name, period
        self._store: Store | None = None
        self._last: list[RenderableType] = []
        self._away_since: datetime | None = None
        self.complete = False

    def picture(self) -> Group:
        """The study as it is now; while the store is away, as it was, and since when."""
        try:
            self._last = self._look()
            self._away_since = None
            return Group(*self._last)
        except StoreAwayError as error:
            self._away_since = self._away_since or datetime.now(UTC)
            since = self._away_since.astimezone()
            return Group(*self._last, Text(f"The store is away since {since:%H:%M:%S}: {error}", style="bold red"))

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _look(self) -> list[RenderableType]:
        from rank_search.observe import status_of
        from rank_search.store import Store

        self._store = self._store or Store.open(self._where)
        found = status_of(self._store, self._name, self._period)
        self.complete = found.complete
        return [
            Text(f"{found.moment.astimezone():%H:%M:%S}"),
            *(_short_table(rows, title) for title, rows in _tables(found) if rows),
        ]


def _watch(watched: _Watched) -> None:
    console = Console(markup=False, emoji=False)
    try:
        if console.is_terminal:
            _watch_live(watched, console)
        else:
            _watch_lines(watched, console)
    finally:
        watched.close()


def _watch_live(watched: _Watched, console: Console) -> None:
    with Live(watched.picture(), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not watched.complete:
            time.sleep(_REFRESH.total_seconds())
            live.update(watched.picture(), refresh=True)


def _watch_lines(watched: _Watched, console: Console) -> None:
    console.print(watched.picture())
    while not watched.complete:
        time.sleep(_REFRESH.total_seconds())
        console.print(watched.picture())


def _short_table(rows: Sequence[Row], title: str) -> RenderableType:
    hidden = len(rows) - _MOST_SHOWN
    table = table_of(rows[:_MOST_SHOWN], title)
    return Group(table, Text(f"and {hidden} more")) if hidden > 0 else table


# ---- rows --------------------------------------------------------------------------------------------------


def _tables(found: Status) -> list[tuple[str, Sequence[Row]]]:
    """The parts as people read them, by title."""
    return [(f"status of {found.study.name}", _headlines(found)), *_parts(found)]


def _headlines(found: Status) -> list[Row]:
    states = ", ".join(f"{count} {state}" for state, count in found.activity.trials.items() if count)
    target = "" if found.study.target is None else f" of {found.study.target}"
    ago = found.seconds_since(found.activity.last_finished)
    shown = {
        "trials": f"{found.finished}{target} ({states or 'none yet'}){': complete' if found.complete else ''}",
        **({"cuts": found.activity.cuts} if found.activity.cuts else {}),
        "in flight": len(found.activity.claims),
        "front": found.on_front or ("none: no trial is complete" if found.finished else 0),
        "hypervolume": found.hypervolume,
        "rate": f"{found.rate:.4g} a minute over {'its last ' if found.complete else ''}"
        f"{clock(found.period.total_seconds())}",
        "left": clock(found.seconds_left),
        "last finished": "–" if ago is None else f"{clock(ago)} ago",
    }
    return [{"field": field, "value": value} for field, value in shown.items()]


def _summary(found: Status) -> Row:
    last = found.activity.last_finished
    return {
        "study": found.study.name,
        "trials": {str(state): count for state, count in found.activity.trials.items()},
        "finished": found.finished,
        **({"cuts": found.activity.cuts} if found.activity.cuts else {}),
        "target": found.study.target,
        "complete": found.complete,
        "in_flight": len(found.activity.claims),
        "on_front": found.on_front,
        "hypervolume": found.hypervolume,
        "trials_a_minute": found.rate,
        "seconds_left": found.seconds_left,
        "last_finished": None if last is None else last.isoformat(timespec="seconds"),
    }


def _parts(found: Status) -> list[tuple[str, Sequence[Row]]]:
    finished = found.activity.by_worker
    return [
        ("drivers", [_driver_row(found, driver) for driver in found.drivers]),
        ("trials in flight", [_claim_row(found, claim) for claim in found.activity.claims]),
        (
            "workers",
            [
                {"worker": worker, "finished": finished[worker], "trials_a_minute": rate}
                for worker, rate in found.rates.items()
            ],
        ),
    ]


def _driver_row(found: Status, driver: DriverStatus) -> Row:
    return {
        "driver": driver.name,
        "alive": "alive" if driver.alive else "silent",
        "holds": driver.in_flight,
        "heard_of": _rounded(found.seconds_since(driver.heartbeat)),
    }


def _claim_row(found: Status, claim: Claim) -> Row:
    return {
        "trial": claim.number,
        "held_by": claim.worker or "nobody: given up",
        "attempt": claim.attempt,
        "budget": claim.budget,
        "goes_on_from": found.goes_on_from.get(claim.number),
        "age": _rounded(found.seconds_since(claim.started)),
        "heartbeat": _rounded(found.seconds_since(claim.heartbeat)),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
