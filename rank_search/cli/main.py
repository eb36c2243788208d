"""The command and its exit codes: 0 done, 2 the user's mistake, 1 anything else."""

from __future__ import annotations

import sys

import typer

from rank_search.cli import (
    cluster_verbs,
    confirm_verb,
    figure_verbs,
    model_verbs,
    pack_verb,
    report_verb,
    status_verb,
    store_verbs,
    study_verbs,
)
from rank_search.credentials import masked
from rank_search.errors import RankSearchError

app = typer.Typer(
    help="Find the low-rank factorization and the rank of every layer of a trained network: "
    "the whole trade-off curve, and a model to deploy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for verbs in (
    study_verbs,
    cluster_verbs,
    store_verbs,
    status_verb,
    figure_verbs,
    confirm_verb,
    report_verb,
    model_verbs,
    pack_verb,
):
    verbs.add_to(app)


def main() -> None:
    """Run the command line and exit."""
    try:
        app(standalone_mode=True)
    except RankSearchError as error:
        _complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        _complain("Interrupted.")
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        sys.exit(1)


def _complain(message: str) -> None:
    sys.stderr.write(f"rank-search: {masked(message)}\n")
