"""The law of docstrings in CONTRIBUTING.md, as far as a test can hold it, and their examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("layers", "priors", "options", "pareto", "quantization", "sources", "training", "coding")
MATHEMATICAL = (
    *("rank_search.layers.bases", "rank_search.layers.metric"),
    *("rank_search.priors.rules", "rank_search.priors.spectrum"),
    *("rank_search.priors.vbmf", "rank_search.priors.weakening"),
    *("rank_search.options.allocation", "rank_search.options.knapsack"),
    *("rank_search.quantization.entropy_models", "rank_search.quantization.rounding"),
    *("rank_search.training.penalties", "rank_search.training.schedules"),
    *("rank_search.coding.binarization", "rank_search.coding.coding_priors"),
    *("rank_search.coding.estimate", "rank_search.coding.grid"),
    *("rank_search.search.improvement", "rank_search.search.residual"),
    *("rank_search.search.surrogate", "rank_search.sources.known_moments"),
)
ARRAYS = re.compile(r"\b(Tensor|NDArray|Array|Values|Integers)\b")


def name_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name.replace("plugins", "rank_search_plugins", 1) if name.startswith("plugins") else name


SOURCES = {
    name_of(path): path for folder in ("rank_search", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))
}
WITH_EXAMPLES = [name for name, path in SOURCES.items() if ">>> " in path.read_text(encoding="utf-8")]


def documented(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_run(module: str) -> None:
    text = SOURCES[module].read_text(encoding="utf-8")
    written = sum(each.count(">>> ") for each in documented(ast.parse(text)))
    result = doctest.testmod(importlib.import_module(module))
    assert (result.failed, result.attempted) == (0, written)


def shown() -> Iterator[tuple[str, Any]]:
    """Functions and methods that the doors of the mathematical rooms show."""
    for room in ROOMS:
        door = importlib.import_module(f"rank_search.{room}")
        for name in door.__all__:
            thing = inspect.unwrap(getattr(door, name)) if callable(getattr(door, name)) else None
            if inspect.isfunction(thing):
                yield f"{room}.{name}", thing
            elif inspect.isclass(thing):
                yield f"{room}.{name}", thing
                yield from ((f"{room}.{name}.{key}", each) for key, each in methods(thing))


def methods(owner: type) -> Iterator[tuple[str, Any]]:
    for name, each in vars(owner).items():
        function = each.fget if isinstance(each, property) else getattr(each, "__func__", each)
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, inspect.unwrap(function)


SHOWN = dict(shown())


def test_public_names_say_in_one_line_what_they_are() -> None:
    lines = {name: (inspect.getdoc(each) or "").partition("\n")[0] for name, each in SHOWN.items()}
    overrides = {name for name, each in SHOWN.items() if not lines[name] and is_override(name)}
    assert [name for name, line in lines.items() if name not in overrides and not line.endswith((".", ":"))] == []


def is_override(name: str) -> bool:
    """Whether a class above says what the method does."""
    room, owner, *method = name.split(".")
    bases = getattr(importlib.import_module(f"rank_search.{room}"), owner).__mro__[1:] if method else ()
    return any(getattr(getattr(base, method[0], None), "__doc__", None) for base in bases)


def test_public_functions_name_the_errors_that_they_raise() -> None:
    silent = {}
    for name, each in SHOWN.items():
        if inspect.isfunction(each):
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
            raised = {ast.unparse(node.exc.func) for node in ast.walk(tree) if is_made_error(node)}
            unnamed = {error for error in raised if error not in (each.__doc__ or "")}
            if unnamed:
                silent[name] = unnamed
    assert silent == {}


def is_made_error(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)


def functions_of(module: str) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    yield from (node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"))


@pytest.mark.parametrize("module", MATHEMATICAL)
def test_mathematical_functions_have_a_running_example(module: str) -> None:
    assert [each.name for each in functions_of(module) if ">>> " not in (ast.get_docstring(each) or "")] == []


@pytest.mark.parametrize("module", MATHEMATICAL)
def test_mathematical_functions_have_the_shapes_of_their_arrays(module: str) -> None:
    """In the annotation; in the docstring (`m × n`) where the function itself refuses other shapes."""
    bare = []
    for function in functions_of(module):
        for argument in [*function.args.args, *function.args.kwonlyargs]:
            hint = ast.unparse(argument.annotation) if argument.annotation else ""
            plain = re.sub(r"(Float|Int|Bool)\[[^']*'[^']*'\]", "", hint)
            if ARRAYS.search(plain) and "×" not in (ast.get_docstring(function) or ""):
                bare.append(f"{function.name}({argument.arg})")
    assert bare == []


def wrong_shape(module: ModuleType) -> Any:
    import torch

    return module.output_error(torch.zeros(2, 3), torch.zeros(4, 3))


def test_shapes_in_annotations_are_checked_while_tests_run() -> None:
    from jaxtyping import TypeCheckError

    with pytest.raises(TypeCheckError, match="out"):
        wrong_shape(importlib.import_module("rank_search.layers.metric"))
