"""docs/cli.md, written from the verbs themselves; `make docs` writes it anew."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from rank_search.cli.main import app

_INTRODUCTION: Final = """# The command line

`rank-search VERB --help` prints what this page says about a verb. `python -m rank_search` is the same as
`rank-search`, and `rank-search --install-completion` installs completion for your shell (`--show-completion` prints
it instead).

"""

_COMMON: Final = """
## What all verbs share

**STORE and NAME** can be omitted. STORE then defaults to `$RANK_SEARCH_STORE`, NAME to the only study in the store.
If a verb gets fewer words than it takes, the first one is STORE, unless `RANK_SEARCH_STORE` is set and the word is
neither a URL, nor an existing file, nor ends in `.sqlite`, `.sqlite3` or `.db`. `delete` and `rename` always need
NAME.

```
export RANK_SEARCH_STORE=digits.sqlite
rank-search show 12                # trial 12 of the only study
rank-search show digits@180 12     # trial 12 of another one
```

**A store** is the path of an SQLite file or an SQLAlchemy URL. By default it lies beside the study file, not in the
current folder; `--store`, `[study] store` and `RANK_SEARCH_STORE`, in this order, override that. `run` prints which
store it uses and where the study stands.

**Output.** Every verb that prints a table, except `allocate`, takes `--format table`, `json` or `csv`. Every verb takes
`-h` (`--help`), and `-q` (`--quiet`) to print results and errors only. No verb overwrites a file unless it has an
option `--overwrite` and you give it.

**Exit codes.** 0: done; Ctrl-C ends `status --watch` and `dashboard` so, too. 2: refused or given up, with one message
that says why and what to do: a mistake in what you typed or wrote, or a store, a cluster or a place for files that is
out of reach. 130: Ctrl-C, and for `run` and `confirm` SIGTERM; the same command resumes. 1: trials failed one after
another, `check` or `plugins check` found something, output could not be written, or an error of rank-search itself.
`submit` exits as its job does.
"""

_VALUES: Final = {str: "TEXT", int: "N", float: "X", Path: "PATH"}
_SHARED: Final = ("quiet",)


def reference() -> str:
    """The whole page."""
    verbs = list(_verbs("rank-search", typer.main.get_command(app)))
    index = "".join(f"| [`{_short(name)}`](#{_anchor(name)}) | {_summary(verb)} |\n" for name, verb in verbs)
    table = f"| verb | what it does |\n| --- | --- |\n{index}"
    return _INTRODUCTION + table + _COMMON + "".join(_section(name, verb) for name, verb in verbs)


def _verbs(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, verb in group.commands.items():
        yield f"{prefix} {name}", verb
        if hasattr(verb, "commands"):
            yield from _verbs(f"{prefix} {name}", verb)


def _short(name: str) -> str:
    return name.removeprefix("rank-search ")


def _anchor(name: str) -> str:
    return _short(name).replace(" ", "-")


def _summary(verb: Any) -> str:
    return _cell(verb.help.split("\n\n")[0])


def _section(name: str, verb: Any) -> str:
    *prose, example = verb.help.split("\n\n")
    shell = example.removeprefix("Example: ").replace("\n", " ")
    told = "\n\n".join(each.replace("\n", " ") for each in prose)
    return f"\n## {_short(name)}\n\n{told}\n\n```\n{_synopsis(name, verb)}\n```\n\nExample: `{shell}`\n{_tables(verb)}"


def _synopsis(name: str, verb: Any) -> str:
    words = [_argument(each) for each in verb.params if each.param_type_name == "argument"]
    needed = [f"{each.opts[-1]} {_value(each)}" for each in _options(verb) if each.required]
    return " ".join([name, *words, *needed, "[OPTIONS]"])


def _argument(param: Any) -> str:
    word = _value(param) + ("…" if param.nargs == -1 and "..." not in _value(param) else "")
    return word if param.required else f"[{word}]"


def _options(verb: Any) -> list[Any]:
    return [each for each in verb.params if each.param_type_name == "option" and each.name not in _SHARED]


def _tables(verb: Any) -> str:
    arguments = [each for each in verb.params if each.param_type_name == "argument"]
    options = _options(verb)
    rows = [f"| `{_escaped(_value(each))}` | {_cell(each.help)} |" for each in arguments]
    text = _table("| argument | meaning |\n| --- | --- |", rows)
    rows = [f"| {_flags(each)} | {_default(each)} | {_cell(each.help)} |" for each in options]
    return text + _table("| option | default | meaning |\n| --- | --- | --- |", rows)


def _table(head: str, rows: list[str]) -> str:
    return "\n".join(["", head, *rows, ""]) if rows else ""


def _flags(param: Any) -> str:
    names = ", ".join(f"`{each}`" for each in [*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} `{_escaped(_value(param))}`"


def _value(param: Any) -> str:
    if param.metavar:
        return str(param.metavar)
    kind = param.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(each.value) for each in kind)
    return _VALUES.get(kind, "TEXT")


def _default(param: Any) -> str:
    if param.required:
        return "needed"
    value = param.default.value if isinstance(param.default, enum.Enum) else param.default
    if value is None or value is False:
        return ""
    return f"`{param.opts[0]}`" if value is True else f"`{value:.3g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str | None) -> str:
    return _escaped(" ".join((text or "").split())).replace("*", "\\*")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
