"""Verbs that make or check things: `export`, `pack`, `unpack`, `plugins`, `dashboard`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rank_search.cli.aside import say
from rank_search.cli.output import OutputFormat, print_rows
from rank_search.cli.parameters import DynamicOption, FormatOption, NameArgument, StoreArgument, TrialArgument
from rank_search.cli.verb import App

if TYPE_CHECKING:
    from rank_search.testing import LawResult

_FOLLOW: Final = timedelta(seconds=3)


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(export)
    app.command()(pack)
    app.command()(unpack)
    app.command()(dashboard)
    plugins = App(
        help="List the installed factorizations; `plugins check` runs the six laws against one.\n\n"
        "Example: rank-search plugins check svd",
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    plugins.callback()(list_plugins)
    plugins.command("check")(check_plugin)
    app.add_typer(plugins, name="plugins")


def export(
    store: StoreArgument,
    name: NameArgument,
    trial: TrialArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", metavar="DIR")],
    format: Annotated[str, typer.Option(help="safetensors, pt2, onnx or transformers.")] = "safetensors",
    study: Annotated[
        Path | None,
        typer.Option(help="Study file to take the task from; default: the one the study began with.", metavar="FILE"),
    ] = None,
    fuse: Annotated[bool, typer.Option("--fuse", help="Fold batch norms into the layers before them.")] = False,
    dynamic: DynamicOption = None,
) -> None:
    """Write the model of a trial into a new folder, after verifying that it measures what the store says.

    safetensors: for rank_search.load(DIR). pt2: for torch.export.load. onnx: for onnxruntime. transformers: for
    AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True) and the like, of models that transformers has.
    Each comes with the coded byte string (model.coded) and a manifest.

    Example: rank-search export digits.sqlite digits 12 -o small --format onnx
    """
    from rank_search.export import export_trial
    from rank_search.store import Store
    from rank_search.study import load_study, load_task

    with Store.open(store) as opened:
        task = None if study is None else load_task(load_study(study))
        manifest = export_trial(opened, name, trial, output, format, task, fuse=fuse, dynamic=dynamic)
    files = ", ".join(manifest["files"])
    typer.echo(f"Trial {trial} of {name} is in {output} ({files}), {_verified(manifest)}.")


def pack(
    store: StoreArgument,
    name: NameArgument,
    trial: TrialArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to make.", metavar="FILE")],
    study: Annotated[
        Path | None,
        typer.Option(help="Study file to take the task from; default: the one the study began with.", metavar="FILE"),
    ] = None,
    dynamic: DynamicOption = None,
) -> None:
    """Write the model of a trial into one file, for rank_search.load(FILE), after verifying it as export does.

    Example: rank-search pack digits.sqlite digits 12 -o small.rsz
    """
    from rank_search.export import pack_trial
    from rank_search.store import Store
    from rank_search.study import load_study, load_task

    with Store.open(store) as opened:
        task = None if study is None else load_task(load_study(study))
        packed = pack_trial(opened, name, trial, output, task, dynamic=dynamic)
    sizes = ", ".join(f"{part} {size:,}" for part, size in packed.sizes().items() if size)
    typer.echo(f"Trial {trial} of {name} is in {output} (bytes: {sizes}), {_verified(packed.manifest)}.")


def _verified(manifest: Mapping[str, Any]) -> str:
    measured = ", ".join(f"{key} {value:g}" for key, value in manifest["measurements"].items())
    if manifest["draws"]:
        return f"its outputs verified; it draws random numbers, and was recorded with {measured}"
    return f"verified: {measured}"


def unpack(
    file: Annotated[Path, typer.Argument(help="A file that `rank-search pack` wrote.", metavar="FILE")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", metavar="DIR")],
    largest: Annotated[int, typer.Option(min=1, help="Refuse a file that claims to hold more numbers.")] = 1 << 28,
) -> None:
    """Write a packed model into a new folder, as `export --format safetensors` does; needs neither store nor task.

    Example: rank-search unpack small.rsz -o small
    """
    from rank_search.export import unpack_file

    manifest = unpack_file(file, output, largest)
    typer.echo(f"{file} is in {output} ({', '.join(manifest['files'])}).")


def list_plugins(context: typer.Context, format: FormatOption = OutputFormat.TABLE) -> None:
    """List the installed factorizations, or with `check` run the six laws against one."""
    if context.invoked_subcommand is not None:
        return
    from rank_search.errors import PluginError
    from rank_search.layers import installed, load_plugin

    rows = []
    for name, entry in installed().items():
        problem = ""
        try:
            load_plugin(name)
        except PluginError as error:
            problem = str(error)
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
        rows.append({"name": name, "class": entry.value, "package": package, "problem": problem})
    print_rows(rows, format, "factorizations", empty="none is installed")


def check_plugin(
    plugin: Annotated[str, typer.Argument(help="An installed name, or path.py:Class.", metavar="NAME|path.py:Class")],
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Run the six laws of the factorization contract; exit with 1 if one is broken.

    Example: rank-search plugins check my_plugin.py:Kronecker
    """
    from rank_search.layers import load_plugin
    from rank_search.testing import check_factorization

    results = sorted(check_factorization(load_plugin(plugin)), key=attrgetter("ok"))  # what is broken comes first
    rows = [{"law": each.law, "ok": each.ok, "layer": each.layer, "detail": each.detail} for each in results]
    print_rows(rows, format, f"laws of {plugin}")
    say(_verdict(plugin, results))
    if not all(each.ok for each in results):
        raise typer.Exit(1)


def _verdict(plugin: str, results: Sequence[LawResult]) -> str:
    """What all the tries come to, in one line."""
    laws, layers = ({getattr(each, part) for each in results} for part in ("law", "layer"))
    broken = Counter(each.law for each in results if not each.ok)
    if not broken:
        return f"{plugin} keeps all {len(laws)} laws on all {len(layers)} layers."
    counted = ", ".join(f"{law} on {count} of {len(layers)} layers" for law, count in broken.items())
    return f"{plugin} breaks {len(broken)} of {len(laws)} laws: {counted}."


def dashboard(
    store: StoreArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
) -> None:
    """Open optuna-dashboard on a mirror of the store, which follows it every few seconds, until Ctrl-C.

    Example: rank-search dashboard digits.sqlite
    """
    from wsgiref.simple_server import make_server

    import optuna
    from optuna_dashboard import wsgi

    from rank_search.cli.server import ThreadedServer
    from rank_search.observe import following
    from rank_search.store import Store

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with Store.open(store) as opened, following(opened, every=_FOLLOW) as mirror:
        try:
            server = make_server(host, port, wsgi(mirror), server_class=ThreadedServer)
        except OSError as error:
            raise typer.BadParameter(f"{host}:{port} cannot be used: {error.strerror}. Try --port 0.") from error
        with server, suppress(KeyboardInterrupt):
            say(f"optuna-dashboard on http://{host}:{server.server_port} (Ctrl-C ends it)")
            server.serve_forever()
