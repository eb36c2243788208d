"""The command and its exit codes: 0 done, 2 the user's mistake, 130 Ctrl-C, 1 anything else."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Annotated, Final

import typer

from rank_search.basics import masked, stand_in_for_closed, unbroken
from rank_search.cli import (
    allocate_verb,
    cluster_verbs,
    confirm_verb,
    figure_verbs,
    model_verbs,
    pack_verb,
    removal_verbs,
    report_verb,
    status_verb,
    store_verbs,
    study_verbs,
    synthesize_verb,
)
from rank_search.cli.aside import hushed
from rank_search.cli.verb import INTERRUPTED, App, QuietOption
from rank_search.errors import RankSearchError, TrialsFailedError

app = App(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rank-search {version('rank-search')}")
        raise typer.Exit


@app.callback()
def rank_search(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Find the low-rank factorization and the rank of every layer of a trained network: the whole trade-off curve,
    and a model to deploy.

    STORE is an SQLite file or a URL, by default what RANK_SEARCH_STORE says. NAME, of a study, can be left out where a
    store has one.
    """
    context.with_resource(hushed(quiet))


for verbs in (
    study_verbs,
    allocate_verb,
    cluster_verbs,
    store_verbs,
    status_verb,
    figure_verbs,
    confirm_verb,
    report_verb,
    model_verbs,
    pack_verb,
    synthesize_verb,
    removal_verbs,
):
    verbs.add_to(app)


_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def main() -> None:
    """Run the command line and exit."""
    stand_in_for_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign gets another
    with unbroken("stderr"):
        _main()


def _main() -> None:
    try:
        _to_the_last_word()
    except TrialsFailedError as error:
        _complain(str(error))
        sys.exit(1)
    except RankSearchError as error:
        _complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        _complain("Interrupted.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        _print_no_more()
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        _complain(
            "Ray is not installed, and --on ray, submit and [launch] tensorboard need it. Run, in the folder of "
            "rank-search: pip install ."
        )
        sys.exit(2)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _print_no_more()
        _complain(f"{error.strerror}. Free some and run the same command again.")
        sys.exit(1)


def _to_the_last_word() -> None:
    try:
        app(standalone_mode=True)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # here what cannot be written is told in a line, at the interpreter's end in several


def _print_no_more() -> None:
    """What still waits to be printed goes nowhere."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _complain(message: str) -> None:
    sys.stderr.write(f"rank-search: {masked(message)}\n")
