"""Verbs that change what a store has: `delete` and `rename`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rank_search.cli.aside import say
from rank_search.cli.output import from_here
from rank_search.cli.parameters import StoreArgument
from rank_search.errors import QueryError

if TYPE_CHECKING:
    from rank_search.store import Store, StudyRecord


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(delete)
    app.command()(rename)


def delete(
    store: StoreArgument,
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="NAME")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a study: its trials, its front and the files of its models. It asks once, and cannot be undone.

    Its confirmations, NAME@EPOCHS, are studies of their own and stay. A study that a driver works on is refused.

    Example: rank-search delete digits.sqlite digits
    """
    from rank_search.artifacts import artifacts_at
    from rank_search.observe import SILENT
    from rank_search.store import Store, artifact_folder

    with Store.open(store) as opened:
        record = opened.study(study)
        files = artifacts_at(record.artifacts, artifact_folder(store, record.folder), opened.tenant)
        _be_sure(opened, record, files.location, yes)
        trials = opened.delete(study, opened.now() - SILENT, files)
    say(f"The study {study!r} is deleted: {_counted(trials)}, with the files of their models.")


def rename(
    store: StoreArgument,
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="NAME")],
    new: Annotated[str, typer.Argument(help="Its new name.", metavar="NEW")],
) -> None:
    """Give a study another name, and its confirmations NAME@EPOCHS with it; files stay where they are.

    To resume it, give it the new name in its study file, too. A study that a driver works on is refused.

    Example: rank-search rename digits.sqlite digits digits-first
    """
    from rank_search.observe import SILENT
    from rank_search.store import Store

    with Store.open(store) as opened:
        names = opened.rename(study, new, opened.now() - SILENT)
        shown = from_here(opened.location)
    others = "".join(f", {each!r}" for each in names[1:])
    say(
        f"The study {study!r} is {names[0]!r} now{others and ', its confirmations' + others[1:]}: "
        f'rank-search front {shlex.join([shown, new])}\nTo resume it, write name = "{new}" in its study file.'
    )


def _be_sure(store: Store, record: StudyRecord, files: str, yes: bool) -> None:
    """Ask once, if there is somebody to ask.

    Raises:
        QueryError: there is nobody.
    """
    if yes:
        return
    trials = next(sum(each.trials.values()) for each in store.studies() if each.name == record.name)
    what = (
        f"the study {record.name!r} in {store.location}: {_counted(trials)}, and the files of their models in {files}"
    )
    if not sys.stdin.isatty():
        raise QueryError(f"Deleting {what} needs a yes, and there is no terminal to ask on. Give --yes.")
    if not typer.confirm(f"Delete {what}?", err=True):
        say("Nothing was deleted.")
        raise typer.Exit(1)


def _counted(trials: int) -> str:
    return "1 trial" if trials == 1 else f"{trials} trials"
