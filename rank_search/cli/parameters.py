"""Arguments and options that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rank_search.cli.output import OutputFormat
from rank_search.errors import QueryError


class Launcher(StrEnum):
    """What `--on` takes."""

    LOCAL = "local"
    RAY = "ray"


class MadeUp(StrEnum):
    """What `--data` takes."""

    SYNTHETIC = "synthetic"
    GAUSSIAN = "gaussian"
    ANALYTIC = "analytic"
    NONE = "none"


StoreArgument = Annotated[
    str,
    typer.Argument(help="SQLAlchemy URL, or path of an SQLite file; default: RANK_SEARCH_STORE.", metavar="STORE"),
]
NameArgument = Annotated[
    str, typer.Argument(help="Name of the study; default: the only one in the store.", metavar="NAME")
]
TrialArgument = Annotated[int, typer.Argument(help="Number of the trial.", metavar="TRIAL")]
StudyArgument = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.toml")]
StudyOrNetworkArgument = Annotated[
    str,
    typer.Argument(
        help="A study file, or a network alone: its factory, or its file of torch.export.save.",
        metavar="STUDY.toml|MODEL.py:factory|MODEL.pt2",
    ),
]
FormatOption = Annotated[OutputFormat, typer.Option("--format", help="How to print.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")]
ToleranceOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        help="How far from the dense model the knee is looked for: a share of the way to the reference point.",
        metavar="SHARE",
    ),
]
DynamicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic",
        help="A dimension of the inputs that may have any size: DIM, or INPUT:DIM; can be repeated. The batch may, and "
        "so are those that differ in the selection data, unless one of them is 'none'.",
        metavar="[INPUT:]DIM",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Trials at a time; default: the study file's (of confirm: that of --study).")
]
LauncherOption = Annotated[
    Launcher | None, typer.Option(help="Where trials run; default: the study file's (of confirm: that of --study).")
]
AddressOption = Annotated[
    str | None, typer.Option(help="Ray cluster to use: auto, HOST:PORT or ray://HOST:10001.", metavar="ADDRESS")
]
LogOption = Annotated[
    Path | None, typer.Option(help="Append events to this file, one JSON object a line.", metavar="FILE")
]


def check_address(given: str | None, on: str) -> None:
    """The address of a cluster is for trials that run on one.

    Raises:
        QueryError: they do not.
    """
    if given is not None and on != Launcher.RAY:
        raise QueryError(
            f"--address {given} names a Ray cluster, and trials run on this machine ([launch] with = "
            f'"{on}"). Add --on ray, or leave --address out.'
        )
