"""The verb `allocate`: a smaller model in seconds, without a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rank_search.cli.output import OutputFormat, Row, print_rows
from rank_search.cli.pack_verb import study_of_reference
from rank_search.cli.parameters import DynamicOption

if TYPE_CHECKING:
    from rank_search.run import AllocatedModel


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(allocate)


def allocate(
    task: Annotated[
        str, typer.Argument(help="A study file, or the factory of a task.", metavar="STUDY.toml|TASK.py:factory")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", metavar="DIR")],
    macs: Annotated[
        str | None, typer.Option(help="Most multiply-adds: 0.5 (of the dense model's), 50%, 200k.", metavar="AMOUNT")
    ] = None,
    params: Annotated[str | None, typer.Option(help="Most parameters, likewise.", metavar="AMOUNT")] = None,
    bits: Annotated[
        str | None, typer.Option(help="Most bits of the parameters as they are stored, uncoded.", metavar="AMOUNT")
    ] = None,
    format: Annotated[str, typer.Option(help="safetensors, pt2, onnx or transformers.")] = "safetensors",
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure both models on the selection data.")
    ] = True,
    dynamic: DynamicOption = None,
) -> None:
    """Write the model of least error within bounds on its cost: fitted to the trained weights, in seconds, no search.

    Each layer becomes what leaves the least error of the layers' outputs in all; nothing is trained. Of a study file,
    [search] counts by round_to alone, [training] by batchnorm_batches, and importances are learned if [priors] gives a
    number of them. The folder is what export writes, without coded bytes.

    Example: rank-search allocate studies/digits.toml --macs 0.5 -o small
    """
    from rank_search.errors import QueryError
    from rank_search.export import form_of
    from rank_search.run import allocate_model
    from rank_search.trials import threads

    given = {"params": params, "macs": macs, "bits": bits}
    bounds = {name: _amount(text) for name, text in given.items() if text is not None}
    if not bounds:
        raise QueryError("There is no bound. Say what the model may cost: --macs, --params or --bits.")
    form_of(output, format)
    study = study_of_reference(task, "allocate")
    with threads(study.launch.torch_threads):
        found = allocate_model(study, bounds, measure=measure)
        manifest = found.write(output, format, dynamic=dynamic)
    print_rows(_rows(found), OutputFormat.TABLE, f"layers of {output}")
    print_rows(_changes(found), OutputFormat.TABLE, "dense and allocated")
    typer.echo(f"The model is in {output} ({', '.join(manifest['files'])}), its outputs verified.")


def _amount(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _rows(found: AllocatedModel) -> list[Row]:
    """Every layer that was chosen for, dense or not."""
    from rank_search.layers import layers

    rows = layers(found.model, found.problem.task.example())
    kept = [row.to_json() for row in rows if row.layer in found.allocation.layers]
    return [{name: value for name, value in row.items() if name != "skipped"} for row in kept]


def _changes(found: AllocatedModel) -> list[Row]:
    """Each measurement of both models."""
    return [
        {
            "measurement": name,
            "dense": found.dense[name],
            "allocated": value,
            "share": value / found.dense[name] if name in ("params", "macs") and found.dense[name] else None,
        }
        for name, value in found.measurements.items()
    ]
