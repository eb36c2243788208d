"""The verb `confirm`: chosen trials of a study once more, trained for longer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rank_search.cli.aside import say
from rank_search.cli.output import OutputFormat, Row, print_rows
from rank_search.cli.parameters import (
    AddressOption,
    FormatOption,
    LauncherOption,
    LogOption,
    NameArgument,
    StoreArgument,
    WorkersOption,
    check_address,
)

if TYPE_CHECKING:
    from rank_search.launch import LaunchSettings
    from rank_search.run import Confirmation

_COUNTED: Final = ("params", "macs")  # follow from the point, however long it is trained


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(confirm)


def confirm(
    store: StoreArgument,
    name: NameArgument,
    trials: Annotated[
        list[int] | None, typer.Argument(help="Numbers of trials; default: the whole front.", metavar="TRIAL")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Epochs to train each for; default: ten times those of the study, at least 1.")
    ] = None,
    workers: WorkersOption = None,
    on: LauncherOption = None,
    address: AddressOption = None,
    study: Annotated[
        Path | None,
        typer.Option(
            help="The study file as it is now: for its [launch], and the folder that its task is in.",
            metavar="FILE",
        ),
    ] = None,
    log: LogOption = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Retrain chosen trials for longer, as a study NAME@EPOCHS in the same store; rerunning the command resumes.

    Example: rank-search confirm digits.sqlite digits 30 39 --epochs 180
    """
    from rank_search.cli.foreground import searching
    from rank_search.launch import LaunchSettings
    from rank_search.run import confirm as confirm_trials
    from rank_search.study import load_study

    file = None if study is None else load_study(study)
    launch = _changed(file.launch if file else LaunchSettings(), workers=workers, on=on and on.value, address=address)
    check_address(address, launch.on)
    folder = file.folder if file else None
    with searching(name, log) as display:
        found = confirm_trials(store, name, trials or (), epochs=epochs, launch=launch, folder=folder, report=display)
    rows = [_row(each) for each in found.trials]
    print_rows(rows, format, f"trials of {name} confirmed in {found.study.name}")
    where = shlex.join([found.shown, found.study.name])
    say(f"{found.added} added; {len(found.front)} on the front: rank-search front {where}")


def _changed(launch: LaunchSettings, **given: Any) -> LaunchSettings:
    return launch.model_copy(update={key: value for key, value in given.items() if value is not None})


def _row(each: Confirmation) -> Row:
    """A confirmation as printed: what was measured before, where training can have changed it, and after."""
    before, after = each.before, each.after
    return {
        "trial": after.number,
        "confirms": before.number,
        "state": str(after.state),
        "before": {key: value for key, value in before.measurements.items() if key not in _COUNTED},
        "after": dict(after.measurements),
        "dominated_by": after.dominated_by,
        "reason": after.reason,
    }
