"""Verbs that take a study file: `layers`, `priors`, `space`, `run`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rank_search.cli.aside import say
from rank_search.cli.network_alone import study_file_of
from rank_search.cli.output import OutputFormat, Row, from_here, print_rows
from rank_search.cli.parameters import (
    AddressOption,
    FormatOption,
    LauncherOption,
    LogOption,
    MadeUp,
    StudyArgument,
    StudyOrNetworkArgument,
    WorkersOption,
    check_address,
)
from rank_search.cli.store_verbs import print_front_of

if TYPE_CHECKING:
    from rank_search.layers import Layer, Skipped
    from rank_search.observe import SearchProgress
    from rank_search.run import Prepared, Result
    from rank_search.study import Problem, StorePlace, Study


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    for verb in (layers, priors, space, run):
        app.command()(verb)


def layers(study: StudyArgument, format: FormatOption = OutputFormat.TABLE) -> None:
    """List every layer: shape, parameters, MACs, which factorizations apply, and why a layer is skipped.

    Example: rank-search layers studies/digits.toml
    """
    from rank_search.study import load_study, read_problem

    problem = read_problem(load_study(study))
    print_rows(_layer_rows(problem), format, f"layers of {problem.study.name}", empty="no layers")


def priors(study: StudyArgument, format: FormatOption = OutputFormat.TABLE) -> None:
    """List what the weights say of each axis: full rank, prior by the rule, VBMF rank, noise, energy kept, break-even.

    Where a factorization says more of a weight, that is listed beside these: of one with a fixed symmetry the
    equivariance gap, the norm of what the symmetry leaves out of the weight over the weight's norm.

    Example: rank-search priors studies/digits.toml
    """
    from rank_search.run import begin, calibration_batches, figures_of, layer_bases, layer_moments, layer_priors
    from rank_search.study import load_study

    problem = begin(load_study(study))
    moments = layer_moments(problem, calibration_batches(problem))
    found = layer_priors(problem, layer_bases(problem, moments))
    figures = [figures_of(problem, prior) for prior in found]
    blank = dict.fromkeys(name for own in figures for name in own)
    rows = [
        {
            "layer": prior.layer,
            "factorization": prior.factorization,
            "axis": prior.axis,
            "full_rank": prior.high,
            "prior": prior.prior,
            "vbmf_rank": prior.vbmf_rank,
            "noise_variance": prior.noise_variance,
            "energy_kept": prior.energy_kept,
            "break_even": prior.break_even,
            **blank,
            **own,
        }
        for prior, own in zip(found, figures, strict=True)
    ]
    print_rows(rows, format, f"priors of {problem.study.name}", empty="no layer can be factorized")


def space(study: StudyArgument, format: FormatOption = OutputFormat.TABLE) -> None:
    """Show what a run would search, without a trial: coordinates, seed points with their costs, constraints.

    Example: rank-search space studies/digits.toml
    """
    from rank_search.run import prepare
    from rank_search.study import load_study

    prepared = prepare(load_study(study))
    if format is OutputFormat.TABLE:
        print_rows(_objective_rows(prepared.problem.study), format, "objectives")
        print_rows(_coordinate_rows(prepared), format, "coordinates")
        print_rows(_seed_rows(prepared), format, "seed points")
        print_rows(_constraint_rows(prepared), format, "constraints", empty="none")
    else:
        rows = [
            *_objective_rows(prepared.problem.study),
            *_coordinate_rows(prepared),
            *_seed_rows(prepared),
            *_constraint_rows(prepared),
        ]
        print_rows(rows, format)


def run(
    study: StudyOrNetworkArgument,
    data: Annotated[
        MadeUp | None, typer.Option("--data", help="Of a network alone: what is looked at instead of data.")
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            help="What one forward of it takes, where its factory does not say: 1x3x32x32, or 1x128,int64.",
            metavar="SHAPE[,DTYPE]",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished trials to reach in all; default: the study file's.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="URL or path; default: the study file's, or RANK_SEARCH_STORE.")
    ] = None,
    workers: WorkersOption = None,
    on: LauncherOption = None,
    address: AddressOption = None,
    log: LogOption = None,
    test: Annotated[
        bool, typer.Option("--test", help="Measure the whole front on the test data, however long that takes.")
    ] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Resume although the code of the task or of a plugin has changed.")
    ] = False,
) -> None:
    """Run or resume a study until it has the number of finished trials asked for; Ctrl-C leaves it resumable.

    Of a network alone, without data, a study file is written beside the store, run, and its front printed: the factory
    returns a trained network, or a network and an example; of a file of torch.export.save nothing is run
    (docs/no-data.md).

    Example: rank-search run studies/digits.toml --on ray --workers 8
    """
    from rank_search.cli.foreground import searching
    from rank_search.run import run_study
    from rank_search.study import StorePlace, load_study, store_of

    file = study_file_of(study, data, example, store)
    loaded = load_study(file)
    loaded = loaded.tested() if test else loaded
    check_address(address, on or loaded.launch.on)
    launch = {"workers": workers, "on": on and on.value, "address": address}
    place = StorePlace(store) if store else store_of(loaded)
    once = iter([_directions(loaded), _beginning(loaded.name, place)])
    with searching(loaded.name, log) as display:

        def report(progress: SearchProgress) -> None:
            for words in once:  # when the study has been joined: before, it may be refused
                say(words)
            display(progress)

        result = run_study(
            loaded.launched(launch), store=place.url, trials=trials, report=report, accept_changes=accept_changes
        )
    _say_what_was_found(result, file, loaded.name)
    if data and result.front:
        print_front_of(result.front, result.study)
    if result.all_failed:
        typer.echo(f"Every trial has failed; the last: {result.all_failed}", err=True)
        raise typer.Exit(1)


def _say_what_was_found(result: Result, file: Path, name: str) -> None:
    if result.complete and not result.added:
        say("Nothing to do: the study already has that many finished trials. --trials N runs on to N in all.")
    if not result.complete:
        say("Every point of the search space has been tried: the study is complete.")
    if result.added and result.allocated:
        say(result.allocated)
    say(_ending(len(result.front), shlex.join([from_here(result.shown), name])))
    if result.untested:
        say(result.untested.replace("STUDY.toml", shlex.quote(str(file))))
    if result.optimistic:
        say(result.optimistic)


def _directions(study: Study) -> str:
    """Which way each objective is better, and what it is where there are no labels, in a line."""
    said = f"Objectives: {', '.join(f'{each.name} is {each.direction}d' for each in study.search.objectives)}."
    return f"{said} {study.data.in_words}".rstrip()


def _beginning(name: str, place: StorePlace) -> str:
    """Whether the study begins or is resumed, and in which store."""
    from rank_search.store import locate, location_of
    from rank_search.study import finished_in

    finished, where = finished_in(place.url, name), from_here(location_of(locate(place.url)))
    if finished is None:
        return f"The study {name!r} begins in {where}."
    counted = f"{finished} finished {'trial' if finished == 1 else 'trials'}"
    if not place.earlier:
        return f"Resuming the study {name!r} in {where}: {counted}."
    other = f"; {from_here(place.ignored)}, next to the study file, is left alone" if place.ignored else ""
    return f"Resuming the study {name!r} in {where}, in the current folder: {counted}{other}."


def _ending(members: int, where: str) -> str:
    if not members:
        return f"No trial is on the front; the trials say why: rank-search trials {where}"
    counted = "1 trial is" if members == 1 else f"{members} trials are"
    return f"{counted} on the front: rank-search front {where}"


def _layer_rows(problem: Problem) -> list[Row]:
    inventory = problem.inventory
    taken = [_layer_row(problem, name) for name in inventory.layers]
    tied = [_tied_row(tie, layer.name) for layer in inventory.layers.values() for tie in layer.ties]
    return taken + tied + [_skipped_row(skipped) for skipped in inventory.skipped]


def _tied_row(tie: Layer, layer: str) -> Row:
    from rank_search.layers import tied_in

    shape = "×".join(map(str, tie.shape))
    row: Row = {"layer": tie.name, "kind": tie.kind, "shape": shape, "params": 0, "macs": 0}
    return {**row, "factorizations": [], "skipped": tied_in(layer)}


def _layer_row(problem: Problem, name: str) -> Row:
    from rank_search.layers import is_folded, layer_cost
    from rank_search.point import Choice

    layer, choices = problem.inventory.layers[name], problem.choices[name]
    cost = layer_cost(layer, None, Choice())
    return {
        "layer": name,
        "kind": f"{layer.kind} (folded)" if is_folded(problem.original, name) else layer.kind,
        "shape": "×".join(map(str, layer.shape)),
        "params": cost.params,
        "macs": cost.macs,
        "factorizations": list(choices),
        "skipped": "" if choices else "none of the factorizations applies to its shape",
    }


def _skipped_row(skipped: Skipped) -> Row:
    return {
        "layer": skipped.name,
        "kind": skipped.kind,
        "shape": "×".join(map(str, skipped.shape)),
        "params": skipped.params,
        "macs": skipped.macs,
        "factorizations": [],
        "skipped": skipped.reason,
    }


def _objective_rows(study: Study) -> Sequence[Row]:
    better = {"minimize": "lower is better", "maximize": "higher is better"}
    return [
        {"objective": each.name, "direction": each.direction, "meaning": better[each.direction]}
        for each in study.search.objectives
    ]


def _coordinate_rows(prepared: Prepared) -> Sequence[Row]:
    from optuna.distributions import CategoricalDistribution

    from rank_search.search import coordinates

    rows: list[Row] = []
    for name, distribution in coordinates(prepared.space).items():
        if isinstance(distribution, CategoricalDistribution):
            values: dict[str, Any] = {"low": None, "high": None, "choices": list(distribution.choices)}
        else:
            values = {"low": distribution.low, "high": distribution.high, "choices": []}  # type: ignore[attr-defined]
        rows.append({"coordinate": name, **values})
    return rows


def _seed_rows(prepared: Prepared) -> Sequence[Row]:
    dense = prepared.costs.dense
    rows = []
    for seed in prepared.seeds:
        cost = prepared.costs.cost(seed.point)
        shares = {f"{name}_of_dense": cost[name] / dense[name] for name in dense}
        rows.append({"seed": seed.label, **cost, **shares, **seed.point.to_json()})
    return rows


def _constraint_rows(prepared: Prepared) -> Sequence[Row]:
    from rank_search.search import COUNTED

    return [
        {"constraint": str(bound), "checked": "before training" if bound.name in COUNTED else "after the trial"}
        for bound in prepared.problem.study.search.constraints
    ]
