"""Verbs for a cluster: `submit`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rank_search.cli.aside import say
from rank_search.cli.parameters import StudyArgument
from rank_search.cli.verb import INTERRUPTED

if TYPE_CHECKING:
    from rank_search.submit import SubmittedJob

AddressOption = Annotated[
    str, typer.Option(help="Ray's dashboard on the head node: http://HEAD:8265.", envvar="RAY_API_SERVER_ADDRESS")
]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(submit)


def submit(
    study: StudyArgument,
    address: AddressOption,
    store: Annotated[
        str | None,
        typer.Option(
            help="URL of a server, without a password, or absolute path on the head node; "
            "default: the study file's, or RANK_SEARCH_STORE on the head node."
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished trials to reach in all; default: the study file's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; default: the study file's.")] = None,
    follow: Annotated[bool, typer.Option(help="Show the job's log until it ends; Ctrl-C detaches.")] = True,
) -> None:
    """Ship the study's folder to a Ray cluster and run it there as a job; follow its log, exit as it does.

    Example: rank-search submit studies/digits.toml --address http://head:8265
    """
    from rank_search.study import load_study
    from rank_search.submit import submit_study

    job = submit_study(study, address, store=store, trials=trials, workers=workers)
    loaded = load_study(study)
    hints = _hints(job, store or loaded.study.store, loaded.name)
    say(f"The study {loaded.name!r} is job {job.id} on {address}.\n{hints}")
    if follow:
        _follow(job, hints)
    else:
        typer.echo(job.id)


def _hints(job: SubmittedJob, store: str, name: str) -> str:
    where = shlex.quote(store) if store else '"$RANK_SEARCH_STORE"'
    return (
        f"  its log   {job.command('logs', '--follow')}\n"
        f"  its end   {job.command('stop')}\n"
        f"  results   rank-search status {where} {shlex.quote(name)} --watch"
    )


def _follow(job: SubmittedJob, hints: str) -> None:
    try:
        ending = job.follow(_write)
    except KeyboardInterrupt:
        typer.echo(f"\nDetached: job {job.id} keeps running.\n{hints}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if ending.code:
        typer.echo(f"Job {job.id} ended as {ending.status}. {ending.reason}".rstrip(), err=True)
        raise typer.Exit(ending.code)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
