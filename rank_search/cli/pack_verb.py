"""The verb `pack-model`: a trained network becomes a small file, without a search and without training."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rank_search.cli.output import OutputFormat, Row, print_rows
from rank_search.cli.parameters import DynamicOption
from rank_search.errors import QueryError

if TYPE_CHECKING:
    from rank_search.export import PackedModel
    from rank_search.study import Study
    from rank_search.tasks import Task

COUNTED: Final = ("params", "macs", "bits")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("pack-model")(pack_model)


def pack_model(
    task: Annotated[
        str, typer.Argument(help="A study file, or the factory of a task.", metavar="STUDY.toml|TASK.py:factory")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", metavar="FILE.rsz")],
    calibration: Annotated[int, typer.Option(min=1, help="Batches of training data to look at.")] = 8,
    slope: Annotated[
        float | None,
        typer.Option(help="Relative squared error of the outputs that a kilobyte is worth; default 0.001."),
    ] = None,
    size: Annotated[float | None, typer.Option(help="Largest size in KB (1024 bytes), instead of a slope.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of PyTorch; default: those of the study file's [launch], or 1.")
    ] = None,
    dynamic: DynamicOption = None,
    format: Annotated[OutputFormat, typer.Option("--format", help="How to print.")] = OutputFormat.TABLE,
) -> None:
    """Round and code a trained model as it is, with a look at some training data: minutes, no training, no labels.

    Example: rank-search pack-model studies/digits.toml --size 16 -o digits.rsz
    """
    from rank_search.export import check_free
    from rank_search.study import load_task
    from rank_search.trials import threads as with_threads

    check_free(output, "a packed model is a new file")
    study = study_of_reference(task, "pack-model")
    with with_threads(threads or study.launch.torch_threads):
        found = load_task(study)
        packed = _pack(found, calibration, slope, _bytes(size))
        packed.write(output, dynamic)
        print_rows(_rows(packed), format, f"layers of {output}", empty="no layers")
        for name, reason in packed.safe.items():
            typer.echo(f"{name} is kept at a safe step: {reason}.", err=True)
        typer.echo(f"{output}: {_in_words(packed, found)}", err=format is not OutputFormat.TABLE)


def _bytes(kilobytes: float | None) -> int | None:
    if kilobytes is None:
        return None
    if not 0 < kilobytes < math.inf:
        raise QueryError(f"The size is {kilobytes:g} KB; it is a positive number.")
    return int(kilobytes * 1024)


def _pack(task: Task, calibration: int, slope: float | None, size: int | None) -> PackedModel:
    from rank_search.export import pack
    from rank_search.quantization import task_inputs
    from rank_search.tasks import seeded, task_errors

    with seeded(0), task_errors("training()"):
        batches = list(islice(task.training(), calibration))
    return pack(task.model(), *task_inputs(task, batches), task.example(), slope, size)


def _in_words(packed: PackedModel, task: Task) -> str:
    """How small it is, and what became of the measurements."""
    from rank_search.tasks import task_errors
    from rank_search.trials import measure

    with task_errors("selection() or evaluate()"):
        before, after = (measure(task, model, packed.size) for model in (task.model(), packed.model))
    changes = ", ".join(f"{name} {before[name]:g} → {after[name]:g}" for name in after if name not in COUNTED)
    return (
        f"{packed.size:,} bytes coded, {8 * packed.size / int(after['params']):.2f} bits a weight, at slope "
        f"{packed.slope:.3g}; {changes} on the selection data; its outputs differ by {packed.error:.2g} "
        "of their square on the calibration batches."
    )


def study_of_reference(reference: str, name: str) -> Study:
    """The study of a file, or one of that name about the task of a factory."""
    from rank_search.study import Study, load_study

    if reference.endswith(".toml"):
        return load_study(reference)
    tables = {"study": {"name": name}, "task": {"factory": reference}, "folder": Path.cwd()}
    return Study.model_validate(tables)


def _rows(packed: PackedModel) -> list[Row]:
    return [
        {"layer": each.name, "weights": each.weights, "step": each.step, "zeros": each.zeros, "error": each.error}
        for each in packed.layers
    ]
