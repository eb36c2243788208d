"""A search in the foreground of a terminal: shown while it runs, and left resumable when it is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import typer

from rank_search.basics import unbroken
from rank_search.cli.progress import ProgressDisplay
from rank_search.cli.verb import INTERRUPTED
from rank_search.launch import this_process
from rank_search.observe import logs


@contextmanager
def searching(study: str, log: Path | None) -> Iterator[ProgressDisplay]:
    """The display of a search, for as long as it runs; Ctrl-C says how to resume and exits with 130.

    Whoever reads the display may go away: a closed terminal, or the end of a pipe, ends no search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside: as tidy as Ctrl-C
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with (
            unbroken("stdout"),
            ProgressDisplay() as display,
            logs.configure(log),
            logs.bound(study=study, worker=this_process()),
        ):
            yield display
    except KeyboardInterrupt:
        typer.echo(f"Interrupted; nothing finished is lost. Rerunning the command resumes {study!r}.", err=True)
        raise typer.Exit(INTERRUPTED) from None
