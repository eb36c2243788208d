"""What all verbs have in common: `-h`, `--quiet`, words that may be left out, and how Ctrl-C ends them."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, final

import typer
from typer.core import TyperCommand

from rank_search.cli.aside import announced, hushed
from rank_search.cli.words import VARIABLE, Shape, complete

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the signal's number."""

_HEAVY: Final = frozenset(
    [
        "allocate",
        "layers",
        "priors",
        "space",
        "run",
        "confirm",
        "export",
        "pack",
        "pack_model",
        "synthesize",
        "check_plugin",
    ]
)

_LEFT_OUT: Final = ("store", "name")

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results and errors only: no progress, no remarks.")
]


@final
class App(typer.Typer):
    """A group of verbs."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a verb."""
        register = super().command(name, cls=Verb, **settings)
        return lambda function: register(with_quiet(function))


@final
class Verb(TyperCommand):
    """A verb. Its arguments `store` and `name` may be left out, see `words.complete`."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        for each in self.params:
            if each.param_type_name == "argument" and each.name in _LEFT_OUT:
                each.required = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Fill in what was left out, before anything is made of the words."""
        options, words = split(args, self.params)
        if not ctx.resilient_parsing and not set(ctx.help_option_names) & set(options):
            found = self._completed(words)
            plain = not any(word.startswith("-") for word in found)
            args = [*found, *options] if plain else [*options, "--", *found]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Carry it out; Ctrl-C ends it in one line."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, typer.Abort):  # Abort: at a question
            typer.echo("rank-search: Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from None

    def _completed(self, words: list[str]) -> list[str]:
        taken = [each for each in self.params if each.param_type_name == "argument"]
        if not taken or taken[0].name != "store":
            return words
        has_name = len(taken) > 1 and taken[1].name == "name"
        rest = taken[1 + has_name :]
        many = any(each.nargs == -1 for each in rest)
        after = sum(each.nargs != -1 for each in rest)
        return complete(words, Shape(has_name, after, many), os.environ.get(VARIABLE), _studies)


def _studies(store: str) -> list[str]:
    from rank_search.store import Store

    with Store.open(store) as opened:
        return [each.name for each in opened.studies()]


def with_quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with an option `--quiet`; without it, its waits are announced."""
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def heard(*words: Any, quiet: bool, **options: Any) -> Any:
        with hushed(quiet), announced():
            if function.__name__ in _HEAVY and "torch" not in sys.modules:
                logging.getLogger("rank_search.steps").info("Loading PyTorch")
            return function(*words, **options)

    option = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=QuietOption)
    parameters = [*signature.parameters.values(), option]
    heard.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    heard.__annotations__ = {each.name: each.annotation for each in parameters}
    return heard


def split(args: Sequence[str], params: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Options, each with its value, and the words between them.

    What follows `--` is words; an option that there is none of stays where the parser finds and refuses it.
    """
    flags = {name for each in params for name in _names_of_flags(each)} | {"-h", "--help"}
    valued = {name for each in params for name in each.opts} - flags
    options: list[str] = []
    words: list[str] = []
    left = iter(args)
    for arg in left:
        if arg == "--":
            words += left
        elif arg == "-" or not arg.startswith("-"):
            words.append(arg)
        else:
            options.append(arg)
            if arg in valued:
                options += [value for value in [next(left, None)] if value is not None]
    return options, words


def _names_of_flags(param: Any) -> list[str]:
    is_flag = getattr(param, "is_flag", False) or getattr(param, "count", False)
    return [*param.opts, *param.secondary_opts] if is_flag else []
